"""How often something secret may be guessed at.

A try is counted before it is looked at, and given back when it was right: so no number of tries at once,
and of processes, gets beyond a bound. Each bound is a bucket: it holds so many failed tries, and one drains
away in each part of the period. A row keeps only the time at which its bucket will be empty (the generic
cell rate algorithm, ATM Forum TM 4.0). What is counted is the same whether an account exists or not. The
statements stand in ``auth/tries.py``.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from morag_meta.auth.generations import Keys
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.tries import TryKey, key_of
from morag_meta.db.unit import Row
from morag_meta.errors import Exhausted, Reason
from morag_meta.uow import UnitOfWork

KNOWN: Final = dt.timedelta(days=30)
"""How long an address at which somebody logged in is known to be theirs."""

LOGIN: Final = "LOGIN"
PASSWORD: Final = "PASSWORD"  # noqa: S105 - what is tried, not one
RESET: Final = "RESET"
RESET_REQUEST: Final = "RESET_REQUEST"
_NOWHERE: Final = "-"  # stands for the address of a peer that has none
_IPV6_NETWORK: Final = 64


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``most`` failed tries at once, and one more each ``period / most``."""

    most: int
    period: dt.timedelta

    def after_try(self, clear_time: dt.datetime | None, now: dt.datetime) -> dt.datetime:
        """Say when nothing is held against whoever tries now."""
        return max(clear_time or now, now) + self.period / self.most

    def wait(self, clear_time: dt.datetime | None, now: dt.datetime) -> float:
        """Say in how many seconds the next try is let through; 0 for at once."""
        return max((self.after_try(clear_time, now) - self.period - now).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of failed log-ins; one whose ``most`` is 0 does not hold.

    The first is strict: whoever guesses from one address gets no further. The others are loose, as they meet
    people who did nothing: of the account, and behind the address.
    """

    of_account_at_address: Limit
    of_account: Limit
    of_address: Limit


@dataclass(frozen=True, slots=True)
class Count:
    """One bucket into which a try goes.

    While the service's secret is changed, other processes may count the same in rows of ``others``.
    """

    key: TryKey
    limit: Limit
    others: tuple[TryKey, ...] = ()

    @property
    def is_of_both(self) -> bool:
        """Whether it is of one account at one address."""
        return bool(self.key.account and self.key.address)

    @property
    def is_of_account(self) -> bool:
        """Whether it is of one account wherever it is tried."""
        return not self.key.address


Counts = Sequence[Count]


class Throttle:
    """Counts tries and refuses what is too much."""

    def __init__(self, keys: bytes | Keys, limits: Limits) -> None:
        """Count by these limits; ``keys``, one or those in force, key the hashes that stand for accounts."""
        self._hasher = KeyHasher(keys)
        self._limits = limits

    def login(self, email: str, address: str) -> Counts:
        """Give where a log-in for a normalised email from an address counts."""
        limits, place = self._limits, _place(address)
        return _held(
            Count(TryKey(LOGIN, "", place), limits.of_address),
            self._of_account(LOGIN, email, "", limits.of_account),
            self._of_account(LOGIN, email, place, limits.of_account_at_address),
        )

    def password(self, user_id: str) -> Counts:
        """Give where a user's present password counts, when it is asked for again."""
        return _held(self._of_account(PASSWORD, user_id, _NOWHERE, self._limits.of_account_at_address))

    def reset_request(self, email: str, address: str) -> tuple[Counts, Counts]:
        """Give where it counts that an address asks for a reset, and that one is asked for an email."""
        by_address = Count(TryKey(RESET_REQUEST, "", _place(address)), self._limits.of_address)
        by_account = self._of_account(RESET_REQUEST, email, "", self._limits.of_account_at_address)
        return _held(by_address), _held(by_account)

    def reset(self, address: str) -> Counts:
        """Give where a token that resets a password counts."""
        return _held(Count(TryKey(RESET, "", _place(address)), self._limits.of_address))

    def forget(self, uow: UnitOfWork, *, user_id: str, email: str) -> None:
        """Forget what is held against a user's account."""
        for account in self._hasher.digests(email):
            uow.tries.forget((LOGIN, RESET_REQUEST), account)
        for account in self._hasher.digests(user_id):
            uow.tries.forget((PASSWORD,), account)

    def _of_account(self, kind: str, account: str, address: str, limit: Limit) -> Count:
        first, *others = (TryKey(kind, each, address) for each in self._hasher.digests(account))
        return Count(first, limit, tuple(others))


@dataclass(frozen=True, slots=True)
class _Held:
    """What is held against whoever tries: the row that counts, and those that others count in."""

    own: Row | None
    others: tuple[Row, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.others if self.own is None else (self.own, *self.others)

    @property
    def known_until(self) -> dt.datetime | None:
        return max((row["known_until"] for row in self.rows if row["known_until"] is not None), default=None)

    def clear_time(self, now: dt.datetime) -> dt.datetime | None:
        """When nothing is held against them, were all counted in one row."""
        own = None if self.own is None else self.own["clear_time"]
        over = [row["clear_time"] - now for row in self.others if row["clear_time"] > now]
        return max(own or now, now) + sum(over, dt.timedelta()) if over else own


_Read = Callable[[TryKey], Row | None]


def _held_against(counts: Counts, read: _Read) -> dict[Count, _Held]:
    """Read what is held, all rows in the order in which they are locked."""
    rows = {key: read(key) for key in sorted(key for count in counts for key in (count.key, *count.others))}
    return {
        count: _Held(rows[count.key], tuple(row for key in count.others if (row := rows[key]) is not None))
        for count in counts
    }


def look(uow: UnitOfWork, counts: Counts) -> None:
    """Refuse what ``take`` would refuse, without a lock.

    Raises:
        Exhausted: TOO_MANY_TRIES.
    """
    held = _held_against(counts, uow.tries.find)
    _admit(held, _now(uow, held))


def take(uow: UnitOfWork, counts: Counts) -> Counts:
    """Count a try as a failed one; give where it was counted, for ``passed`` or ``give_back``.

    Raises:
        Exhausted: there were too many already (TOO_MANY_TRIES); this one is not counted.
    """
    held = _held_against(counts, uow.tries.lock)
    now = _now(uow, held)
    admitted = _admit(held, now)
    for count in admitted:
        row = held[count].own
        if row is None:
            uow.tries.add(count.key, count.limit.after_try(None, now))
        else:
            clear_time = count.limit.after_try(row["clear_time"], now)
            uow.tries.change(count.key, clear_time, row["known_until"])
    return admitted


def passed(uow: UnitOfWork, counts: Counts) -> None:
    """Note that a counted try was right.

    The address is known from then on, and what was held against the account at it is forgotten; elsewhere
    only this try is, since others may be guessing there.
    """
    give_back(uow, [count for count in counts if not count.is_of_both])
    for count in counts:
        if not count.is_of_both:
            continue
        held = _held_against([count], uow.tries.lock)
        now = _now(uow, held)
        for row in held[count].rows:
            uow.tries.change(key_of(row), now, now + KNOWN)
        if held[count].own is None:
            uow.tries.add(count.key, now, now + KNOWN)


def give_back(uow: UnitOfWork, counts: Counts) -> None:
    """Undo the counting of a try."""
    for count in counts:
        # What was counted may have moved meanwhile to the row of another key.
        for row in _held_against([count], uow.tries.lock)[count].rows[:1]:
            earlier = row["clear_time"] - count.limit.period / count.limit.most
            uow.tries.change(key_of(row), earlier, row["known_until"])


def _admit(held: Mapping[Count, _Held], now: dt.datetime) -> Counts:
    """Give where a try is counted: not against the account, where its user has logged in from before.

    So nobody can shut others out of their accounts from elsewhere, however long they go on guessing.
    """
    known = any(
        each.known_until is not None and each.known_until > now
        for count, each in held.items()
        if count.is_of_both
    )
    counts = [count for count in held if not (known and count.is_of_account)]
    wait = max((count.limit.wait(held[count].clear_time(now), now) for count in counts), default=0.0)
    if wait > 0:
        raise Exhausted("too many failed tries: wait", reason=Reason.TOO_MANY_TRIES, retry_after=wait)
    return counts


def _now(uow: UnitOfWork, held: Mapping[Count, _Held]) -> dt.datetime:
    """Give the database's time, which came with a row if there is any."""
    times: list[dt.datetime] = [row["clock"] for each in held.values() for row in each.rows]
    return max(times) if times else uow.tries.now()


def _held(*counts: Count) -> Counts:
    return [count for count in counts if count.limit.most]


def _place(address: str) -> str:
    """Give the address that counts: of IPv6 the network of 64 bits, as whoever has one has all of it."""
    if ":" not in address:
        return address or _NOWHERE
    return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False).network_address)
