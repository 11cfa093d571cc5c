"""Arguments, connections and settings."""
