"""Grants: which databases are shared with whom, and for what."""
