"""Refresh tokens: each names its session, is followed by exactly one other, and shows that it is ours.

A token is its session's id, a secret of 32 bytes, and a tag over both. The first secret is random, and
each following one is a keyed hash of the one before: whoever repeats a token is given the same successor,
although the database keeps hashes alone. The tag lets a token of long ago be told from a made-up one
without a row for each. Pure: which token a session takes is in its row (``auth/sessions.py``).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid
from typing import Final

_ID_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_TAG_BYTES: Final = 16
_LENGTH: Final = -(-(_ID_BYTES + _SECRET_BYTES + _TAG_BYTES) * 4 // 3)  # base64url without padding


class RefreshTokens:
    """Makes and reads refresh tokens under one key of the service."""

    def __init__(self, key: bytes) -> None:
        """Take the key; what tags, what chains and what hashes are three keys made of it."""
        self._tag_key, self._chain_key, self._hash_key = (
            hmac.digest(key, use, "sha256") for use in (b"tag", b"successor", b"hash")
        )

    def first(self, session_id: str) -> str:
        """Make the first token of a session."""
        return self._sealed(uuid.UUID(session_id).bytes, secrets.token_bytes(_SECRET_BYTES))

    def session_of(self, token: str) -> str | None:
        """Give the id of the session that a token was made for, or None for what is no token of ours."""
        parts = self._opened(token)
        return None if parts is None else str(uuid.UUID(bytes=parts[0]))

    def successor(self, token: str) -> str:
        """Give the token that follows one of ours, always the same.

        Raises:
            ValueError: it is none of ours.
        """
        parts = self._opened(token)
        if parts is None:
            raise ValueError("no refresh token")
        return self._sealed(parts[0], hmac.digest(self._chain_key, parts[0] + parts[1], "sha256"))

    def digest(self, token: str) -> str:
        """Give the keyed hash, in hexadecimal, under which a session keeps a token."""
        return hmac.new(self._hash_key, token.encode(), hashlib.sha256).hexdigest()

    def _sealed(self, session: bytes, secret: bytes) -> str:
        body = session + secret
        return base64.urlsafe_b64encode(body + self._tag(body)).rstrip(b"=").decode()

    def _opened(self, token: str) -> tuple[bytes, bytes] | None:
        """Give session and secret; a token has one spelling, so that none is read as another."""
        if len(token) != _LENGTH or not token.isascii():
            return None
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-_LENGTH % 4))
        except ValueError:
            return None
        if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != token:
            return None
        body, tag = data[:-_TAG_BYTES], data[-_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body)):
            return None
        return body[:_ID_BYTES], body[_ID_BYTES:]

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._tag_key, body, "sha256")[:_TAG_BYTES]
