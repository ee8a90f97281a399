"""API keys: ``api_keys.proto``."""
