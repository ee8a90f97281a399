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
from morag_meta.config import ConfigurationError

LEAST_BYTES: Final = 32
PURPOSES: Final = frozenset(
    {"api-key", "jwt", "page-token", "refresh-token", "request-fingerprint", "stream-token"}
)
"""What keys are derived for. A new use gets a new name; a name is never given to another use."""

_FIX: Final = "make one with: openssl rand -base64 48"
_FEWEST_DIFFERENT_BYTES: Final = 10  # 32 random characters hold fewer different ones about never
_EXAMPLES: Final = (
    b"changeme",
    b"change-me",
    b"change_me",
    b"your-secret",
    b"your_secret",
    b"your-super-secret",
    b"supersecret",
    b"in-production",
    b"example",
    b"password",
    b"abcdefghijklmnopqrstuvwxyz",
    b"0123456789abcdef0123456789abcdef",
)


class RootSecret:
    """The one secret: at least 32 random bytes. It is never shown, only derived from."""

    def __init__(self, secret: bytes) -> None:
        """Take the secret.

        Raises:
            ConfigurationError: it is too short, a known example, or visibly not random.
        """
        problem = _problem(secret)
        if problem:
            raise ConfigurationError(f"MORAG_SECRET_KEY is not accepted, {problem}: {_FIX}")
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
    problem = _problem(text.strip().encode())
    if problem:
        raise ConfigurationError(
            f"the secret key {path} is not usable, {problem}: put the file back from a backup"
        )
    return RootSecret.from_text(text)


def _problem(secret: bytes) -> str:
    if len(secret) < LEAST_BYTES:
        return f"it is shorter than {LEAST_BYTES} bytes"
    if any(example in secret.lower() for example in _EXAMPLES):
        return "it is a known example value"
    if len(set(secret)) < _FEWEST_DIFFERENT_BYTES or _repeats(secret):
        return "it is not random"
    return ""


def _repeats(secret: bytes) -> bool:
    """Whether it is one shorter text over and over: then it stands in its own double before the end."""
    return (secret + secret).find(secret, 1) < len(secret)
