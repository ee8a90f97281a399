"""Who calls: secrets, keys, tokens, passwords, and the principal that they prove."""
