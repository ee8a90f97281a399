"""The audit: who did what to what, kept with the change itself, and shown to an ADMIN."""
