"""Refresh tokens: each names its session, is followed by exactly one other, and shows that it is ours.

A token is its session's id, a secret of 32 bytes, and a tag over both. The first secret is random, and
each following one is a keyed hash of the one before: whoever repeats a token is given the same successor,
although the database keeps hashes alone. The tag lets a token of long ago be told from a made-up one
without a row for each. Pure: which token a session takes is in its row (``auth/sessions.py``).
"""

from __future__ import annotations

import base64
import hmac
import secrets
import uuid
from functools import lru_cache
from typing import Final, NamedTuple

from morag_meta.auth.generations import Keys, keys_of
from morag_meta.auth.keys import KeyHasher

_ID_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_TAG_BYTES: Final = 16
_LENGTH: Final = -(-(_ID_BYTES + _SECRET_BYTES + _TAG_BYTES) * 4 // 3)  # base64url without padding


class RefreshTokens:
    """Makes refresh tokens under the service's key, and reads those of every key in force."""

    def __init__(self, keys: bytes | Keys) -> None:
        """Take the key, or what gives those in force."""
        self._keys = keys_of(keys)

    def first(self, session_id: str) -> str:
        """Make the first token of a session."""
        return self._made[0].sealed(uuid.UUID(session_id).bytes, secrets.token_bytes(_SECRET_BYTES))

    def session_of(self, token: str) -> str | None:
        """Give the id of the session that a token was made for, or None for what is no token of ours."""
        opened = self._opened(token)
        return None if opened is None else str(uuid.UUID(bytes=opened[1]))

    def successor(self, token: str) -> str:
        """Give the token that follows one of ours, always the same while the signing key is.

        Raises:
            ValueError: it is none of ours.
        """
        return self.successors(token)[0]

    def successors(self, token: str) -> tuple[str, ...]:
        """Give what follows one of ours by each key in force, ``successor`` first.

        Raises:
            ValueError: it is none of ours.
        """
        opened = self._opened(token)
        if opened is None:
            raise ValueError("no refresh token")
        _, session, secret = opened
        return tuple(each.sealed(session, each.chained(session + secret)) for each in self._made)

    def digest(self, token: str) -> str:
        """Give the keyed hash under which a session keeps one of our tokens, by the key that made the token.

        Raises:
            ValueError: it is none of ours.
        """
        opened = self._opened(token)
        if opened is None:
            raise ValueError("no refresh token")
        return opened[0].hasher.digest(token)

    @property
    def generations(self) -> tuple[str, ...]:
        """What ``digest`` begins with for tokens of each key in force, the signing one first."""
        return tuple(each.hasher.generations[0] for each in self._made)

    @property
    def _made(self) -> tuple[_Generation, ...]:
        return tuple(map(_generation, self._keys()))

    def _opened(self, token: str) -> tuple[_Generation, bytes, bytes] | None:
        """Give what made it, session and secret; a token has one spelling, so none is read as another."""
        if len(token) != _LENGTH or not token.isascii():
            return None
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-_LENGTH % 4))
        except ValueError:
            return None
        if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != token:
            return None
        body, tag = data[:-_TAG_BYTES], data[-_TAG_BYTES:]
        for each in self._made:
            if hmac.compare_digest(tag, each.tagged(body)):
                return each, body[:_ID_BYTES], body[_ID_BYTES:]
        return None


class _Generation(NamedTuple):
    """What one key of the service makes: what tags, what chains and what hashes are three keys of it."""

    tag_key: bytes
    chain_key: bytes
    hasher: KeyHasher

    def sealed(self, session: bytes, secret: bytes) -> str:
        body = session + secret
        return base64.urlsafe_b64encode(body + self.tagged(body)).rstrip(b"=").decode()

    def tagged(self, body: bytes) -> bytes:
        return hmac.digest(self.tag_key, body, "sha256")[:_TAG_BYTES]

    def chained(self, body: bytes) -> bytes:
        return hmac.digest(self.chain_key, body, "sha256")


@lru_cache(maxsize=8)
def _generation(key: bytes) -> _Generation:
    tag, chain, hashing = (hmac.digest(key, use, "sha256") for use in (b"tag", b"successor", b"hash"))
    return _Generation(tag, chain, KeyHasher(hashing))
