"""Who calls, and with which powers. How it is proved stands in ``auth/authenticator.py``."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import Final


class Role(enum.IntEnum):
    """What a user may do, in the order of power; names as in the database, numbers as in the protos."""

    VIEWER = 1
    USER = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven caller.

    ``scopes`` is None where every scope is held. ``key_id`` is empty for a session's access token, and
    ``session_id`` for an API key. ``expire_time`` is when the credential ends (aware UTC), None for never.
    ``addresses`` are the canonical ranges from which it may be used, none for anywhere.
    """

    user_id: str
    role: Role
    scopes: frozenset[str] | None
    key_id: str
    session_id: str
    expire_time: dt.datetime | None
    addresses: tuple[str, ...] = ()

    def has_scope(self, scope: str) -> bool:
        """Whether the credential holds a scope; one of everybody's rows (``:all``) is an ADMIN's to give."""
        if self.scopes is None:
            return self.role is Role.ADMIN or not scope.endswith(":all")
        return scope in self.scopes


ANONYMOUS: Final = Principal("", Role.VIEWER, frozenset(), "", "", None)
"""The caller of a public method: nobody in particular."""
