"""Quotas: what users may have, and have: ``quotas.proto``."""
