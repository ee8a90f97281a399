"""The access token of a session: a JWT (RFC 7519).

Pure: what a session is, and whether it goes on, is in its row (``auth/sessions.py``). An access token
alone lets nobody in; the authenticator asks for its session too. What renews it is
``auth/refresh_tokens.py``'s.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Final

import jwt

from morag_meta.auth.generations import Keys, keys_of
from morag_meta.auth.principal import Role
from morag_meta.auth.refresh_tokens import RefreshTokens
from morag_meta.errors import Reason, Unauthenticated

ALGORITHMS: Final = ("HS256", "HS384", "HS512")
ACCESS_LIFE: Final = dt.timedelta(minutes=15)
ISSUER: Final = "morag-meta"
AUDIENCE: Final = "morag-meta"

_LONGEST: Final = 4096
_PARTS: Final = 3  # header, claims, signature
_CLAIMS: Final = ["sub", "sid", "role", "iat", "exp", "jti", "iss", "aud"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine access token says: whose it is, of which session, and when it ends."""

    user_id: str
    session_id: str
    expire_time: dt.datetime


class Tokens:
    """Makes and reads tokens under the service's keys."""

    def __init__(
        self,
        jwt_keys: bytes | Keys,
        refresh_keys: bytes | Keys,
        *,
        algorithm: str = "HS256",
        session_life: dt.timedelta = dt.timedelta(hours=24),
    ) -> None:
        """Take keys, or what gives those in force.

        Only tokens of ``algorithm`` are read, whatever they say of themselves.

        Raises:
            ValueError: the algorithm is not one of ``ALGORITHMS``.
        """
        if algorithm not in ALGORITHMS:
            raise ValueError(f"{algorithm!r} is not one of {', '.join(ALGORITHMS)}")
        self._keys = keys_of(jwt_keys)
        self._algorithm = algorithm
        self.refresh = RefreshTokens(refresh_keys)
        self.session_life = session_life

    def issue(
        self, user_id: str, session_id: str, role: Role, *, now: dt.datetime, session_end: dt.datetime
    ) -> tuple[str, dt.datetime]:
        """Make an access token, and say when it ends: in 15 minutes, or with its session.

        The role in it is for the client to read; what it may do is decided by the user's row.
        """
        expire_time = min(now + ACCESS_LIFE, session_end).replace(microsecond=0)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user_id,
            "sid": session_id,
            "role": role.name,
            "iat": int(now.timestamp()),
            "exp": int(expire_time.timestamp()),
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self._keys()[0], self._algorithm), expire_time

    def verify(self, token: str) -> Claims:
        """Read an access token of any key in force.

        Raises:
            Unauthenticated: it is not ours, damaged or expired (CREDENTIAL_INVALID).
        """
        for key in self._keys():
            with contextlib.suppress(jwt.InvalidTokenError, ValueError, TypeError, OverflowError, OSError):
                return self._read(token, key)
        raise Unauthenticated(
            "the access token is not valid, or has expired", reason=Reason.CREDENTIAL_INVALID
        )

    def _read(self, token: str, key: bytes) -> Claims:
        claims = jwt.decode(
            token,
            key,
            algorithms=[self._algorithm],
            audience=AUDIENCE,
            issuer=ISSUER,
            # A process whose clock is a little behind still takes what another one just made.
            options={"require": _CLAIMS, "verify_iat": False},
        )
        expire_time = dt.datetime.fromtimestamp(claims["exp"], dt.UTC)
        return Claims(str(claims["sub"]), str(claims["sid"]), expire_time)


def is_access_token(text: str) -> bool:
    """Say whether a text has a JWT's form: three parts between dots, each in its one spelling.

    Decoders forgive padding and bits that say nothing, so that a changed token would be read as the same.
    """
    parts = text.split(".")
    return len(text) <= _LONGEST and len(parts) == _PARTS and all(map(_is_base64url, parts))


def _is_base64url(part: str) -> bool:
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return False
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode() == part
