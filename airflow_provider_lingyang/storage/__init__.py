"""Databases: a private file, a ledger's, a warehouse's."""
