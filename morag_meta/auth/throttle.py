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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.tries import TryKey
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
    """One bucket into which a try goes."""

    key: TryKey
    limit: Limit

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

    def __init__(self, key: bytes, limits: Limits) -> None:
        """Count by these limits; ``key`` keys the hashes that stand for accounts."""
        self._hasher = KeyHasher(key)
        self._limits = limits

    def login(self, email: str, address: str) -> Counts:
        """Give where a log-in for a normalised email from an address counts."""
        limits, account, place = self._limits, self._hasher.digest(email), _place(address)
        return _held(
            Count(TryKey(LOGIN, "", place), limits.of_address),
            Count(TryKey(LOGIN, account, ""), limits.of_account),
            Count(TryKey(LOGIN, account, place), limits.of_account_at_address),
        )

    def password(self, user_id: str) -> Counts:
        """Give where a user's present password counts, when it is asked for again."""
        key = TryKey(PASSWORD, self._hasher.digest(user_id), _NOWHERE)
        return _held(Count(key, self._limits.of_account_at_address))

    def reset_request(self, email: str, address: str) -> tuple[Counts, Counts]:
        """Give where it counts that an address asks for a reset, and that one is asked for an email."""
        by_address = Count(TryKey(RESET_REQUEST, "", _place(address)), self._limits.of_address)
        account = TryKey(RESET_REQUEST, self._hasher.digest(email), "")
        return _held(by_address), _held(Count(account, self._limits.of_account_at_address))

    def reset(self, address: str) -> Counts:
        """Give where a token that resets a password counts."""
        return _held(Count(TryKey(RESET, "", _place(address)), self._limits.of_address))

    def forget(self, uow: UnitOfWork, *, user_id: str, email: str) -> None:
        """Forget what is held against a user's account."""
        uow.tries.forget((LOGIN, RESET_REQUEST), self._hasher.digest(email))
        uow.tries.forget((PASSWORD,), self._hasher.digest(user_id))


def look(uow: UnitOfWork, counts: Counts) -> None:
    """Refuse what ``take`` would refuse, without a lock.

    Raises:
        Exhausted: TOO_MANY_TRIES.
    """
    rows = {count: uow.tries.find(count.key) for count in counts}
    _admit(rows, _now(uow, rows))


def take(uow: UnitOfWork, counts: Counts) -> Counts:
    """Count a try as a failed one; give where it was counted, for ``passed`` or ``give_back``.

    Raises:
        Exhausted: there were too many already (TOO_MANY_TRIES); this one is not counted.
    """
    rows = {count: uow.tries.lock(count.key) for count in counts}
    now = _now(uow, rows)
    admitted = _admit(rows, now)
    for count in admitted:
        row = rows[count]
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
        row = uow.tries.lock(count.key)
        now = _now(uow, {count: row})
        if row is None:
            uow.tries.add(count.key, now, now + KNOWN)
        else:
            uow.tries.change(count.key, now, now + KNOWN)


def give_back(uow: UnitOfWork, counts: Counts) -> None:
    """Undo the counting of a try."""
    for count in counts:
        row = uow.tries.lock(count.key)
        if row is not None:
            earlier = row["clear_time"] - count.limit.period / count.limit.most
            uow.tries.change(count.key, earlier, row["known_until"])


def _admit(rows: Mapping[Count, Row | None], now: dt.datetime) -> Counts:
    """Give where a try is counted: not against the account, where its user has logged in from before.

    So nobody can shut others out of their accounts from elsewhere, however long they go on guessing.
    """
    known = any(
        row["known_until"] is not None and row["known_until"] > now
        for count, row in rows.items()
        if row is not None and count.is_of_both
    )
    counts = [count for count in rows if not (known and count.is_of_account)]
    wait = max((count.limit.wait(_clear_time(rows[count]), now) for count in counts), default=0.0)
    if wait > 0:
        raise Exhausted("too many failed tries: wait", reason=Reason.TOO_MANY_TRIES, retry_after=wait + 0.001)
    return counts


def _clear_time(row: Row | None) -> dt.datetime | None:
    return None if row is None else row["clear_time"]


def _now(uow: UnitOfWork, rows: Mapping[Count, Row | None]) -> dt.datetime:
    """Give the database's time, which came with a row if there is any."""
    times: list[dt.datetime] = [row["clock"] for row in rows.values() if row is not None]
    return max(times) if times else uow.tries.now()


def _held(*counts: Count) -> Counts:
    return [count for count in counts if count.limit.most]


def _place(address: str) -> str:
    """Give the address that counts: of IPv6 the network of 64 bits, as whoever has one has all of it."""
    if ":" not in address:
        return address or _NOWHERE
    return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False).network_address)
