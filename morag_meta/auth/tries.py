"""Every statement over tries: how often something secret was guessed at lately, by account and address.

Rows are found by their key alone and hold no owner: most accounts that are guessed at do not exist. What a
row means for the next try is ``auth/throttle.py``'s.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from morag_meta.db.clock import clock, read_clock
from morag_meta.db.schema import tries
from morag_meta.db.statements import end_of_batch
from morag_meta.db.sweep import sweep
from morag_meta.db.unit import Row, Unit


class TryKey(NamedTuple):
    """Whose tries a row counts; they sort in the order in which they are locked."""

    kind: str
    account: str  # a keyed hash, empty for all accounts together
    address: str  # empty for all addresses together


_KEY: Final = [tries.c[name] == sa.bindparam(f"of_{name}") for name in TryKey._fields]
_KEY_COLUMNS: Final = [tries.c[name] for name in TryKey._fields]
_FIND: Final = sa.select(*_KEY_COLUMNS, tries.c.clear_time, tries.c.known_until, clock).where(*_KEY)
_LOCK: Final = _FIND.with_for_update()
_ADD: Final = sa.insert(tries)
_SET_COLUMNS: Final = ("clear_time", "known_until", "expire_time")
_SET: Final = (
    sa.update(tries)
    .where(*_KEY)
    .values({name: sa.bindparam(f"new_{name}", type_=tries.c[name].type) for name in _SET_COLUMNS})
)
_FORGET: Final = sa.delete(tries).where(*_KEY[:2])
_DROP: Final = sa.delete(tries).where(*_KEY)
_SWEEP_END: Final = end_of_batch(tries.c.expire_time, "tries belong to nobody")
_SWEEP: Final = sa.delete(tries).where(tries.c.expire_time <= sa.bindparam("last"))


class TryStore:
    """Tries of late."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def now(self) -> dt.datetime:
        """Give the database's time."""
        return read_clock(self._unit)

    def find(self, key: TryKey) -> Row | None:
        """Give what is held against a key: it, clear_time, known_until, and clock, the database's time."""
        return self._unit.one(_FIND, **_named(key))

    def lock(self, key: TryKey) -> Row | None:
        """Give as ``find`` does, and let nobody else change it before this transaction ends."""
        return self._unit.one(_LOCK, **_named(key))

    def add(self, key: TryKey, clear_time: dt.datetime, known_until: dt.datetime | None = None) -> None:
        """Begin to count for a key.

        Raises:
            Collision: somebody else has just begun.
        """
        times = _times(clear_time, known_until)
        self._unit.run(_ADD, **key._asdict(), **times)

    def change(self, key: TryKey, clear_time: dt.datetime, known_until: dt.datetime | None) -> None:
        """Change what is held against a locked key."""
        new = {f"new_{name}": value for name, value in _times(clear_time, known_until).items()}
        self._unit.run(_SET, **_named(key), **new)

    def forget(self, kinds: Sequence[str], account: str) -> None:
        """Forget what is held against an account at every address."""
        for kind in kinds:
            self._unit.run(_FORGET, of_kind=kind, of_account=account)

    def move(self, key: TryKey, account: str) -> None:
        """Hold what a row holds against another hash of its account, on top of what that has already.

        Raises:
            Collision: somebody else has just begun to count for it.
        """
        to = key._replace(account=account)
        rows = {each: self.lock(each) for each in sorted((key, to))}
        old, new = rows[key], rows[to]
        if old is None:
            return
        self._unit.run(_DROP, **_named(key))
        if new is None:
            self.add(to, old["clear_time"], old["known_until"])
            return
        over = max(old["clear_time"] - old["clock"], dt.timedelta())
        known = [row["known_until"] for row in (old, new) if row["known_until"] is not None]
        self.change(to, max(new["clear_time"], new["clock"]) + over, max(known, default=None))

    def sweep(self, limit: int = 1000) -> int:
        """Remove rows that no longer mean anything, the oldest first, and give their number.

        Once that is less than ``limit``, none is left.
        """
        return sweep(self._unit, _SWEEP_END, _SWEEP, limit)


def key_of(row: Row) -> TryKey:
    """Give whose tries a row counts."""
    return TryKey(*(row[name] for name in TryKey._fields))


def _named(key: TryKey) -> dict[str, Any]:
    return {f"of_{name}": value for name, value in key._asdict().items()}


def _times(clear_time: dt.datetime, known_until: dt.datetime | None) -> dict[str, dt.datetime | None]:
    expire_time = clear_time if known_until is None else max(clear_time, known_until)
    return {"clear_time": clear_time, "known_until": known_until, "expire_time": expire_time}
