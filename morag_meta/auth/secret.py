"""The one secret of the service, and the keys that are derived from it.

It comes from MORAG_SECRET_KEY, or on SQLite from a file beside the database that is made at the first
start. Every use has a key of its own (HKDF-SHA-256, RFC 5869), so that what leaks from one says nothing
of another. The key ring that encrypts stored credentials is separate (``auth/credentials.py``).
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from morag_meta.auth.private_file import read_or_create
from morag_meta.config import HOW_TO_MAKE, ConfigurationError
from morag_meta.strength import weakness

PURPOSES: Final = frozenset(
    {
        "api-key",
        "jwt",
        "page-token",
        "password-reset",
        "refresh-token",
        "request-fingerprint",
        "resume-token",
        "tries",
    }
)
"""What keys are derived for. A new use gets a new name; a name is never given to another use."""


class RootSecret:
    """The one secret: at least 32 random bytes. It is never shown, only derived from."""

    def __init__(self, secret: bytes) -> None:
        """Take the secret.

        Raises:
            ConfigurationError: it is too short, a known example, or visibly not random.
        """
        problem = weakness(secret)
        if problem:
            raise ConfigurationError(f"MORAG_SECRET_KEY is not accepted, {problem}: {HOW_TO_MAKE}")
        self._secret = secret
        self._subkeys: dict[tuple[str, int], bytes] = {}

    def __repr__(self) -> str:
        """Show nothing."""
        return "RootSecret(…)"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Take the secret as it is written in the environment or in its file.

        Raises:
            ConfigurationError: as the class.
        """
        return cls(text.strip().encode())

    def subkey(self, purpose: str, length: int = 32) -> bytes:
        """Derive the key of one purpose: the same ``length`` bytes each time, unlike every other's.

        Raises:
            ValueError: the purpose is not one of ``PURPOSES``.
        """
        if purpose not in PURPOSES:
            raise ValueError(f"{purpose!r} is not a purpose of the service's secret")
        key = self._subkeys.get((purpose, length))
        if key is None:
            info = f"morag-meta {purpose} v1".encode()
            key = HKDF(SHA256(), length, salt=None, info=info).derive(self._secret)
            self._subkeys[purpose, length] = key
        return key


def load_or_create(path: Path) -> RootSecret:
    """Read the secret's file, or make it with a fresh secret; of several starters one makes it.

    The file holds one line, as it could stand in MORAG_SECRET_KEY, and only its owner may read it (0600).
    Without it every API key, session and page token is void: it belongs into the backup.

    Raises:
        ConfigurationError: the file cannot be made or read, is open to others, or holds no secret.
    """
    text = read_or_create(path, secrets.token_urlsafe(48) + "\n", "the secret key")
    problem = weakness(text.strip().encode())
    if problem:
        raise ConfigurationError(
            f"the secret key {path} is not usable, {problem}: put the file back from a backup"
        )
    return RootSecret.from_text(text)
