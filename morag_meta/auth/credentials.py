"""The key ring that encrypts the credentials of users' servers at rest.

AES-256-GCM (NIST SP 800-38D) under a key derived by HKDF-SHA-256 (RFC 5869) from a key of the ring, with
a random nonce of 96 bits per text. What is sealed says which key sealed it, so a ring may hold old keys
beside the active one: they open what they sealed, and whatever is written next is sealed by the active
key. What does not live here: which columns are sealed (``servers/secrets.py``), the file that holds a ring
(``auth/secret_files.py``), and the service's root secret (``auth/secret.py``), which is another one.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from morag_meta.config.error import ConfigurationError

VARIABLE: Final = "MORAG_CREDENTIAL_KEYS"
KEY_BYTES: Final = 32

_VERSION: Final = "v1"
_NONCE_BYTES: Final = 12
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_FEWEST_DIFFERENT_BYTES: Final = 12  # 32 random bytes hold fewer different ones about never: it was typed
_FIX: Final = 'make one with: echo "k1:$(openssl rand -base64 32)"'


class UnreadableCredentialError(Exception):
    """A sealed text is damaged, was moved from another place, or its key is not in the ring.

    A fault of the store or of its configuration, never of a request: it reaches a client as INTERNAL.
    """


class CredentialRing:
    """Seals texts with its active key, and opens what any of its keys sealed."""

    def __init__(self, keys: Mapping[str, bytes], active: str) -> None:
        """Take the keys by id, at least 32 random bytes each, and the id of the one that seals.

        Raises:
            ValueError: an id or a key is not usable, or ``active`` is not among them.
        """
        for key_id, key in keys.items():
            problem = _problem(key_id, key)
            if problem:
                raise ValueError(f"credential key {problem}")
        if active not in keys:
            raise ValueError("the active credential key is not in the ring")
        self._active = active
        self._ciphers = {key_id: _cipher(key) for key_id, key in keys.items()}

    def __repr__(self) -> str:
        """Name the keys, and show none."""
        return f"CredentialRing({', '.join(self._ciphers)}; active {self._active})"

    @property
    def active(self) -> str:
        """The id of the key that seals."""
        return self._active

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, that of the one that seals first."""
        return (self._active, *(key_id for key_id in self._ciphers if key_id != self._active))

    @property
    def is_single(self) -> bool:
        """Whether there is one key and no other."""
        return len(self._ciphers) == 1

    def is_active(self, sealed: str) -> bool:
        """Say whether the key that now seals has sealed a text."""
        return sealed.startswith(seal_of(self._active))

    def seal(self, text: str, *, context: str) -> str:
        """Encrypt a text for one place, its ``context``: ``v1.<key id>.<base64 of nonce and ciphertext>``."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._active].encrypt(nonce, text.encode(), _bound_to(self._active, context))
        return f"{_VERSION}.{self._active}.{base64.b64encode(nonce + sealed).decode()}"

    def open_(self, sealed: str, *, context: str) -> str:
        """Decrypt what ``seal`` made for the same context.

        Raises:
            UnreadableCredentialError: it cannot be decrypted; the error says why, and nothing of the text.
        """
        version, _, rest = sealed.partition(".")
        key_id, _, encoded = rest.partition(".")
        if version != _VERSION:
            raise UnreadableCredentialError("it is not a sealed credential")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnreadableCredentialError("the key that sealed it is not in the ring")
        try:
            raw = base64.b64decode(encoded, validate=True)
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound_to(key_id, context)).decode()
        except (InvalidTag, ValueError):
            raise UnreadableCredentialError("it is damaged, or was sealed for another place") from None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``id:base64key[,id:base64key]``, the form of MORAG_CREDENTIAL_KEYS; the first key seals.

        Raises:
            ConfigurationError: names the variable, the entry by its place, and the fix; never a key.
        """
        keys: dict[str, bytes] = {}
        for place, entry in enumerate(text.split(","), start=1):
            key_id, colon, encoded = entry.strip().partition(":")
            key = decoded(encoded)
            problem = _problem(key_id, key) if colon else "is not <id>:<base64 key>"
            if key_id in keys:
                problem = "has the id of another one"
            if problem:
                raise ConfigurationError(f"{VARIABLE}: key {place} {problem}; {_FIX}")
            keys[key_id] = key
        return cls(keys, next(iter(keys)))


def _bound_to(key_id: str, context: str) -> bytes:
    """What is authenticated but not encrypted: a sealed text moved to another place does not open."""
    return f"{_VERSION}\x00{key_id}\x00{context}".encode()


def _cipher(key: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=b"morag-meta credentials v1").derive(key))


def seal_of(key_id: str) -> str:
    """Give what every text begins with that a key has sealed."""
    return f"{_VERSION}.{key_id}."


def decoded(encoded: str) -> bytes:
    """Give what a key's base64 says, of either alphabet, padded or not; empty when it is not base64."""
    bare = encoded.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _problem(key_id: str, key: bytes) -> str:
    if not _KEY_ID.fullmatch(key_id):
        return "has an id that is not 1 to 32 letters, digits, '-' or '_'"
    if len(key) < KEY_BYTES:
        return f"is not the base64 of at least {KEY_BYTES} random bytes"
    if len(set(key)) < _FEWEST_DIFFERENT_BYTES:
        return "is not random"
    return ""
