"""Rows in: read, checked, kept."""
