"""API keys as texts: how one is made, recognized and hashed. Pure; rows are ``api_keys/store.py``'s.

A key holds 256 random bits, so nobody guesses it, and a fast keyed hash guards it as well as a slow one
would: HMAC-SHA-256 (RFC 2104) under a key derived from the service's secret, which lets a unique index
find the row. The text's pattern is fixed, so that a scanner finds keys that were committed by mistake.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import Final

PREFIX: Final = "morag_"
PATTERN: Final = re.compile(r"morag_[A-Za-z0-9_-]{43}", re.ASCII)
"""The whole text of a key: the prefix and 32 bytes in base64url without padding (RFC 4648)."""

_RANDOM_BYTES: Final = 32
_SHOWN_CHARACTERS: Final = 12


def new_key() -> str:
    """Make a key from 32 random bytes."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def is_key(text: str) -> bool:
    """Say whether a text has a key's form; whether the key exists is not known here."""
    return PATTERN.fullmatch(text) is not None


def prefix_of(key: str) -> str:
    """Give the part of a key that is kept and shown: 12 characters, 36 of its 256 random bits."""
    return key[:_SHOWN_CHARACTERS]


class KeyHasher:
    """Hashes secrets that hold enough random bits under one key."""

    def __init__(self, subkey: bytes) -> None:
        """Take the key, at least 32 bytes."""
        if len(subkey) < 32:
            raise ValueError("a hashing key has at least 32 bytes")
        self._subkey = subkey

    def digest(self, secret: str) -> str:
        """Give the hash under which the secret is kept: 64 hexadecimal digits.

        Any text has one, also what no driver or codec would take.
        """
        return hmac.digest(self._subkey, secret.encode("utf-8", "surrogatepass"), "sha256").hex()
