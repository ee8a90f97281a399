"""The root secret of the service, in the generations that are in force, and the keys derived from it.

One generation makes: it signs, hashes and seals. While it is changed, a second one is accepted beside it:
the next one, or the one before. Every use has a key of its own (HKDF-SHA-256, RFC 5869), so that what leaks
from one says nothing of another. What files hold secrets is ``auth/secret_files.py``'s matter, and the key
ring that encrypts stored credentials is separate (``auth/credentials.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from morag_meta.auth.generations import Keys
from morag_meta.config.error import ConfigurationError
from morag_meta.config.setting import HOW_TO_MAKE
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
    """One generation of the root secret: at least 32 random bytes, never shown, only derived from."""

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


class RootSecrets:
    """The generations that are in force, which may change while the service runs."""

    def __init__(self, in_force: Callable[[], tuple[RootSecret, ...]]) -> None:
        """Take what gives them at each moment, the one that makes first."""
        self.in_force = in_force

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take one secret or two, separated by a comma, as they stand in MORAG_SECRET_KEY; they stay.

        Raises:
            ConfigurationError: as ``RootSecret``.
        """
        secrets = tuple(map(RootSecret.from_text, text.split(",")))
        return cls(lambda: secrets)

    def keys(self, purpose: str, length: int = 32) -> Keys:
        """Give what gives the keys of one purpose that are in force.

        Raises:
            ValueError: as ``RootSecret.subkey``.
        """
        return lambda: tuple(secret.subkey(purpose, length) for secret in self.in_force())
