"""Who calls, and with which powers. How it is proved stands in ``auth/authenticator.py``."""

from __future__ import annotations

import datetime as dt
import enum
import math
from dataclasses import dataclass
from typing import Final, Self

from morag_meta.auth.narrowing import Narrowing


class Role(enum.IntEnum):
    """What a user may do, in the order of power; names as in the database, numbers as in the protos."""

    VIEWER = 1
    USER = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate of calls: so many per second in the long run, and ``burst`` of them at once."""

    per_second: float
    burst: int

    @classmethod
    def of(cls, per_second: float, burst: int) -> Self | None:
        """Give the limit, None for a rate of 0; a burst of 0 is the calls of one second, at least one."""
        return cls(per_second, burst or max(1, math.ceil(per_second))) if per_second else None

    def is_within(self, other: Rate) -> bool:
        """Whether this limit lets through no more than another one."""
        return self.per_second <= other.per_second and self.burst <= other.burst


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven caller.

    ``scopes`` is None where every scope is held. ``key_id`` is empty for a session's access token, and
    ``session_id`` for an API key. ``expire_time`` is when the credential ends (aware UTC), None for never.
    ``addresses`` are the canonical ranges from which it may be used, none for anywhere. ``limit`` is the
    rate of its calls where it has one of its own, and ``narrowing`` what an API key is narrowed to.
    """

    user_id: str
    role: Role
    scopes: frozenset[str] | None
    key_id: str
    session_id: str
    expire_time: dt.datetime | None
    addresses: tuple[str, ...] = ()
    limit: Rate | None = None
    narrowing: Narrowing | None = None

    def has_scope(self, scope: str) -> bool:
        """Whether the credential holds a scope; one of everybody's rows (``:all``) is an ADMIN's to give."""
        if self.scopes is None:
            return self.role is Role.ADMIN or not scope.endswith(":all")
        return scope in self.scopes


ANONYMOUS: Final = Principal("", Role.VIEWER, frozenset(), "", "", None)
"""The caller of a public method: nobody in particular."""
