"""Requests out, in order, each once."""
