"""Databases: the named sets that a user's documents are in, and their counts."""
