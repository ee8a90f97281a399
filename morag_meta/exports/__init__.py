"""Exports: everything that the service keeps of one user: ``exports.proto``."""
