"""What holds for API keys: which scopes a key may get, when it ends, and whether it works. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morag_meta import forms
from morag_meta.auth.addresses import canonical_range, contains
from morag_meta.auth.narrowing import Narrowing
from morag_meta.auth.principal import Rate, Role
from morag_meta.auth.standing import limit_of
from morag_meta.errors import Forbidden, Reason, invalid, wrong_state

EVERY_SCOPE: Final = "*"
"""Held in place of all scopes: whatever the owner's role allows at the moment of use."""

LONGEST_NAME: Final = 255

ACTIVE: Final = "ACTIVE"
DISABLED: Final = "DISABLED"
EXPIRED: Final = "EXPIRED"
REVOKED: Final = "REVOKED"

DEFAULT_GRACE: Final = dt.timedelta(hours=24)
LONGEST_GRACE: Final = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Grantor:
    """What bounds the keys that a caller makes or changes.

    ``role`` is the caller's. ``scopes``, ``end``, ``addresses``, ``limit`` and ``narrowing`` are those of the
    API key that calls; None, or no addresses, for a caller who is not bound, such as a session.
    """

    role: Role
    scopes: frozenset[str] | None = None
    end: dt.datetime | None = None
    addresses: tuple[str, ...] = ()
    limit: Rate | None = None
    narrowing: Narrowing | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What the installation asks of keys.

    That they end, how far off the end may be, and the limit of those that have none of their own.
    """

    needs_end: bool = False
    longest_life: dt.timedelta | None = None
    limit: Rate | None = None

    def check_limit(self, own: Rate | None, role: Role) -> None:
        """Refuse a limit that gives more than the installation does, unless an ADMIN gives it.

        Raises:
            Forbidden: ROLE_TOO_LOW.
        """
        if self.limit is None or own is None or role is Role.ADMIN or own.is_within(self.limit):
            return
        raise Forbidden(
            f"only an ADMIN gives a key more than {self.limit.per_second:g} calls per second, "
            f"{self.limit.burst} at once",
            reason=Reason.ROLE_TOO_LOW,
            metadata={"required_role": Role.ADMIN.name},
        )

    def check(self, end: dt.datetime | None, *, now: dt.datetime, field: str) -> None:
        """Refuse an end that the policy does not allow.

        Raises:
            Invalid: names ``field``.
        """
        if end is None and (self.needs_end or self.longest_life is not None):
            raise invalid(field, "is required here: keys without an end are not made")
        if self.longest_life is not None and end is not None and end > now + self.longest_life:
            raise invalid(field, f"must be within {self.longest_life.total_seconds():g} s: keys end by then")


def check_scopes(
    asked: Iterable[str], *, known: Mapping[str, Role], owner_role: Role, field: str
) -> list[str]:
    """Give the scopes that a key gets: sorted, without repeats, ``["*"]`` where none are asked for.

    ``known`` maps each scope of the service to the least role that can use it.

    A scope of everybody's rows (``:all``) is beside the owner's role: it is the grantor's to give.

    Raises:
        Invalid: names ``field``: a scope is not known.
        Forbidden: a scope is beyond the owner's role (SCOPE_NOT_ALLOWED).
    """
    wanted = sorted(set(asked)) or [EVERY_SCOPE]
    for scope in wanted:
        if scope != EVERY_SCOPE and scope not in known:
            raise invalid(field, f"{scope!r} is not a scope; known are {', '.join(sorted(known))}")
    if EVERY_SCOPE in wanted:
        wanted = [EVERY_SCOPE]
    for scope in wanted:
        if scope != EVERY_SCOPE and not _is_of_everybody(scope) and known[scope] > owner_role:
            raise _not_allowed(scope, "the owner's role")
    return wanted


def check_name(name: str, field: str) -> str:
    """Give a key's name that may be kept; for callers whose input no proto rule has checked.

    Raises:
        Invalid: names ``field``: empty or too long, or not in the form of a name.
    """
    if not 1 <= len(name) <= LONGEST_NAME:
        raise invalid(field, f"has 1 to {LONGEST_NAME} characters")
    if wrong := forms.name(name):
        raise invalid(field, wrong)
    return name


def check_end(end: dt.datetime | None, *, now: dt.datetime, field: str) -> None:
    """Refuse an end that has passed.

    Raises:
        Invalid: names ``field``.
    """
    if end is not None and end <= now:
        raise invalid(field, "must be in the future")


def check_addresses(asked: Iterable[str], *, field: str) -> list[str]:
    """Give the ranges of addresses that a key is bound to: canonical, sorted, without repeats.

    Raises:
        Invalid: names ``field`` with the place of what is no range.
    """
    ranges = set()
    for place, text in enumerate(asked):
        try:
            ranges.add(canonical_range(text))
        except ValueError:
            wrong = "must be an address, a range in CIDR notation without bits beyond its prefix, or unix"
            raise invalid(f"{field}[{place}]", wrong) from None
    return sorted(ranges)


def check_within(key: Mapping[str, Any], *, grantor: Grantor, path: str) -> None:
    """Refuse a key that would do more, live longer, or be used from elsewhere, than the key that makes it.

    That what it is narrowed to lies within what that one reaches is seen by looking for it there.

    ``key`` has the columns of the key as it is to be; ``path`` is what a client calls it ("api_key.").

    Raises:
        Forbidden: a scope is beyond the grantor's, or of everybody's rows, and the grantor no ADMIN
            (SCOPE_NOT_ALLOWED).
        Invalid: names the end that is after the grantor's, addresses that are not among the grantor's, the
            rate that is beyond the grantor's, or that it is not narrowed as the grantor is.
    """
    for scope in key["scopes"]:
        if _is_of_everybody(scope) and grantor.role is not Role.ADMIN:
            raise _not_allowed(scope, "the role of who grants it")
        if grantor.scopes is not None and scope not in grantor.scopes:
            raise _not_allowed(scope, "the key that grants it")
    end, addresses = key["expire_time"], key["allowed_addresses"] or ()
    if grantor.end is not None and (end is None or end > grantor.end):
        latest = grantor.end.isoformat()
        raise invalid(f"{path}expire_time", f"must not be after the end of the calling key, {latest}")
    own = limit_of(key)
    if grantor.limit is not None and not (own is not None and own.is_within(grantor.limit)):
        raise invalid(f"{path}rate_limit", "must not be more than that of the calling key")
    if grantor.narrowing is not None and Narrowing.of(key) is None:
        raise invalid(f"{path}database_ids", "must name databases, or server_ids servers, as the calling key")
    bound = grantor.addresses
    if bound and not (addresses and all(contains(bound, each) for each in addresses)):
        raise invalid(f"{path}allowed_addresses", f"must be within the calling key's, {', '.join(bound)}")


def check_not_revoked(row: Mapping[str, Any]) -> None:
    """Refuse to disable or enable a revoked key, which is to stay what it was.

    Raises:
        WrongState: INVALID_STATE.
    """
    if row["revoke_time"] is not None:
        raise wrong_state("api_key", REVOKED, "a revoked key cannot be changed; make another one")


def check_changeable(row: Mapping[str, Any], now: dt.datetime) -> None:
    """Refuse to change a key that is revoked, or whose grace beside its successor is fixed.

    Raises:
        WrongState: INVALID_STATE.
    """
    check_not_revoked(row)
    if row["successor_id"] is not None:
        raise wrong_state("api_key", state_of(row, now), "the key has a successor; change that one")


def check_rotatable(row: Mapping[str, Any], now: dt.datetime) -> None:
    """Refuse to replace a key that does not work, or was replaced already.

    Raises:
        WrongState: INVALID_STATE.
    """
    check_changeable(row, now)
    state = state_of(row, now)
    if state != ACTIVE:
        raise wrong_state("api_key", state, f"only a key that works can be rotated; this one is {state}")


def grace_end(row: Mapping[str, Any], grace: dt.timedelta, now: dt.datetime) -> dt.datetime:
    """Give when a key that is being replaced ends: after the grace, and never after its own end."""
    end = now + grace
    return end if row["expire_time"] is None else min(end, row["expire_time"])


def state_of(row: Mapping[str, Any], now: dt.datetime) -> str:
    """Give whether a key works: ACTIVE, DISABLED, EXPIRED or REVOKED. Its owner's state is not looked at."""
    if row["revoke_time"] is not None:
        return REVOKED
    if row["disable_time"] is not None:
        return DISABLED
    if row["expire_time"] is not None and row["expire_time"] <= now:
        return EXPIRED
    return ACTIVE


def _is_of_everybody(scope: str) -> bool:
    return scope.endswith(":all")


def _not_allowed(scope: str, limit: str) -> Forbidden:
    return Forbidden(
        f"the scope {scope} is beyond {limit}", reason=Reason.SCOPE_NOT_ALLOWED, metadata={"scope": scope}
    )
