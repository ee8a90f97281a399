"""Users, their sessions and their settings: ``users.proto``."""
