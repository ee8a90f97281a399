"""Documents: their states, versions and identities, from the message to the row."""
