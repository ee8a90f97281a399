"""API keys as texts: how one is made, recognized and hashed. Pure; rows are ``api_keys/store.py``'s.

A key holds 256 random bits, so nobody guesses it, and a fast keyed hash guards it as well as a slow one
would. The hash is SHA-256 sealed under a key derived from the service's secret: always to the same text, so
that a unique index finds the row, and so that whoever has that key can seal it anew under another one: no
API key ends because the secret is changed. The text's pattern is fixed, so that a scanner finds keys that
were committed by mistake.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from morag_meta.auth.generations import Keys, keys_of

PREFIX: Final = "morag_"
PATTERN: Final = re.compile(r"morag_[A-Za-z0-9_-]{43}", re.ASCII)
"""The whole text of a key: the prefix and 32 bytes in base64url without padding (RFC 4648)."""
SHOWN_CHARACTERS: Final = 12
"""How many of a key's first characters are kept and shown."""

_LIKE_A_KEY: Final = re.compile(r"morag_[A-Za-z0-9_-]{16,}", re.ASCII)  # mistyped ones, too
_RANDOM_BYTES: Final = 32
_HASH_BYTES: Final = 24  # of SHA-256: with what AES-SIV adds, the text stays below 64 characters
_GENERATION_BYTES: Final = 3


def new_key() -> str:
    """Make a key from 32 random bytes."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def is_key(text: str) -> bool:
    """Say whether a text has a key's form; whether the key exists is not known here."""
    return PATTERN.fullmatch(text) is not None


def prefix_of(key: str) -> str:
    """Give the part of a key that is kept and shown: 12 characters, 36 of its 256 random bits."""
    return key[:SHOWN_CHARACTERS]


def folded(text: str) -> str:
    """Give a text in which of what looks like a key only that part is left that is shown of keys."""
    return _LIKE_A_KEY.sub(lambda found: f"{prefix_of(found[0])}…", text)


class KeyHasher:
    """Hashes what holds enough random bits, or what must not be told apart without the service's secret.

    A hash is ``<generation>.<base64url>``: 24 bytes of SHA-256 under AES-SIV (RFC 5297), which always seals
    the same bytes to the same text, behind six hexadecimal digits that name the key.
    """

    def __init__(self, keys: bytes | Keys) -> None:
        """Take the key, at least 32 bytes, or what gives those in force."""
        self._keys = keys_of(keys)
        if min(map(len, self._keys())) < 32:
            raise ValueError("a hashing key has at least 32 bytes")

    @property
    def generations(self) -> tuple[str, ...]:
        """What the hashes of the keys in force begin with, those that ``digest`` makes first."""
        return tuple(_sealer(key).generation for key in self._keys())

    def digest(self, secret: str | bytes) -> str:
        """Give the hash under which the secret is kept: 61 characters.

        Any text has one, also what no driver or codec would take.
        """
        return _sealer(self._keys()[0]).seal(_hash(secret))

    def digests(self, secret: str | bytes) -> tuple[str, ...]:
        """Give the hashes under which the secret may be kept, by each key in force, ``digest``'s first."""
        hashed = _hash(secret)
        return tuple(_sealer(key).seal(hashed) for key in self._keys())

    def renewed(self, digest: str) -> str | None:
        """Give a hash as ``digest`` would make it of the same secret; None where no key in force made it."""
        sealers = [_sealer(key) for key in self._keys()]
        for sealer in sealers:
            hashed = sealer.open(digest)
            if hashed is not None:
                return sealers[0].seal(hashed)
        return None


class _Sealer(NamedTuple):
    """One key, made ready."""

    generation: str
    cipher: AESSIV

    def seal(self, hashed: bytes) -> str:
        sealed = base64.urlsafe_b64encode(self.cipher.encrypt(hashed, None)).rstrip(b"=").decode()
        return f"{self.generation}.{sealed}"

    def open(self, digest: str) -> bytes | None:
        generation, _, sealed = digest.partition(".")
        if generation != self.generation:
            return None
        try:
            return self.cipher.decrypt(base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4)), None)
        except (InvalidTag, ValueError):
            return None


@lru_cache(maxsize=32)
def _sealer(key: bytes) -> _Sealer:
    name = hmac.digest(key, b"generation", "sha256")[:_GENERATION_BYTES].hex()
    return _Sealer(name, AESSIV(hmac.digest(key, b"hash", "sha512")))


def _hash(secret: str | bytes) -> bytes:
    data = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return hashlib.sha256(data).digest()[:_HASH_BYTES]
