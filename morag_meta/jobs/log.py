"""The statements over the log: the events of all jobs in one order, and up to where it was trimmed.

Events are written without a position and get one after they were committed, a batch at a time, under the
lock of the log's one row: so positions become visible in their order, whatever order their writers
committed in. Who asks for that, and when, stands in ``sequencer.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.engine import IDLE_SECONDS
from morag_meta.db.schema import job_events as events
from morag_meta.db.schema import job_floors as floors
from morag_meta.db.schema import job_log as log
from morag_meta.db.schema import users, workers
from morag_meta.db.statements import EVERYONE, Path, everyone, owned, system
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import Unavailable
from morag_meta.jobs.listing import Filter, event_columns, event_conditions, page_parameters

BATCH: Final = 200
"""The most events that get a position in one transaction."""
GONE: Final = ""
"""Whose floor is that of every owner who is deleted."""
_COUNTED: Final = 1000  # of those without a position
_IDLE_SECONDS: Final = 1  # in which whoever holds the log's row may be silent

_LIMIT: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
_AFTER = events.c.position > sa.bindparam("after_position", type_=sa.BigInteger)
# By position although it is null, as that is how the index is ordered.
_IN_ORDER: Final = (events.c.position, events.c.create_time, events.c.job_id, events.c.number)
_WAITING = system(
    sa.select(*_IN_ORDER).where(events.c.position.is_(None)).order_by(*_IN_ORDER).limit(_LIMIT),
    "gives everybody's events their place",
    Path.POLLER,
)
_SOME_WAITING = sa.select(sa.literal(1)).where(events.c.position.is_(None)).limit(_COUNTED).subquery()
_LOOK = system(
    sa.select(log, sa.select(sa.func.count()).select_from(_SOME_WAITING).scalar_subquery().label("waiting")),
    "only counts; the log is everybody's",
    Path.POLLER,
)
# Where the setting cannot travel with the lock, it is a statement of its own.
_LOCK = sa.select(log.c.position).with_for_update()
_LOCK_POSTGRESQL = _LOCK.add_columns(
    sa.func.set_config(
        "idle_in_transaction_session_timeout", sa.bindparam("idle_ms", type_=sa.Text), sa.true()
    )
)
_LOCK_IF_FREE = _LOCK.with_for_update(skip_locked=True)
_LOCK_IF_FREE_POSTGRESQL = _LOCK_POSTGRESQL.with_for_update(skip_locked=True)
_IMPATIENT_MARIADB = sa.text("SET SESSION idle_transaction_timeout = :idle_seconds")
_PATIENT_MARIADB = sa.text(f"SET SESSION idle_transaction_timeout = {IDLE_SECONDS}")

_chosen = _WAITING.subquery("chosen")
_place = sa.func.row_number().over(order_by=[_chosen.c[column.name] for column in _IN_ORDER])
_numbered = sa.select(_chosen.c.job_id, _chosen.c.number, _place.label("place")).subquery("numbered")
_NUMBER = system(
    sa.update(events)
    .where(events.c.job_id == _numbered.c.job_id, events.c.number == _numbered.c.number)
    .values(position=sa.bindparam("base", type_=sa.BigInteger) + _numbered.c.place),
    "gives everybody's events their place",
    Path.POLLER,
)
# MariaDB would sort by a position that is null, and knows without it that the index has this order.
_WAITING_MARIADB = _WAITING.order_by(None).order_by(*_IN_ORDER[1:])
_ADVANCE = system(
    sa.update(log).values(position=sa.select(sa.func.max(events.c.position)).scalar_subquery()),
    "the log is everybody's",
    Path.POLLER,
)
_REMOVED = sa.select(log.c.removals).scalar_subquery().label("removals")
_PAGE = system(
    sa.select(events, _REMOVED).where(_AFTER).order_by(events.c.position).limit(_LIMIT),
    "is told to watchers, each of whom sees what its filter lets through",
    Path.POLLER,
)
_FLOOR = sa.select(floors.c.position).where(owned(floors))
_PRESENT = system(
    sa.select(users.c.id).where(users.c.id.in_(sa.bindparam("user_ids", expanding=True))),
    "who is deleted has no floor of their own",
    Path.POLLER,
)
_HIGHEST_FLOOR = sa.select(sa.func.max(floors.c.position).label("position")).where(everyone())
_FLOORS_ABOVE = system(
    sa.select(floors).where(floors.c.position > sa.bindparam("after_position", type_=sa.BigInteger)),
    "ends the streams of whoever missed something",
    Path.POLLER,
)
_OWN_WORKERS = sa.select(workers.c.id).where(
    owned(workers), workers.c.id.in_(sa.bindparam("worker_ids", expanding=True))
)


_FLOORS = system(
    sa.select(floors).where(floors.c.owner_id.in_(sa.bindparam("owner_ids", expanding=True))),
    "events of all these owners were removed",
    Path.SWEEPER,
)
_ADD_FLOOR = sa.insert(floors)
_RAISE_FLOOR = sa.update(floors).where(owned(floors)).values(position=sa.bindparam("new_position"))


class JobLog:
    """The log within one unit of work."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit
        self._is_impatient = False

    def look(self) -> Row:
        """Give ``position``, ``removals`` and ``store_id`` of the log, and how many events are ``waiting``.

        Those are the committed ones that have no position yet; no more than 1000 are counted.
        """
        row = self._unit.one(_LOOK)
        if row is None:
            raise RuntimeError("the log has lost its row")
        return row

    def number(self, limit: int = BATCH) -> int | None:
        """Give the oldest events that have none a position; say how many, or None if somebody else is at it.

        For a transaction of its own, in which the log's row is held as ``lock`` holds it.
        """
        base = self._hold(if_free=True)
        if base is None:
            return None
        if self._unit.dialect == "mariadb":
            count = self._number_one_by_one(base, limit)
        else:
            count = self._unit.run(_NUMBER, base=base, limit=limit)
        if count:
            self._unit.run_soon(_ADVANCE)
        return count

    def lock(self) -> int:
        """Take the log's row until this transaction ends, waiting for it; give the newest position.

        A process that stops while it holds the row is thrown out by the database after a second, and loses
        its transaction: others go on (SQLite: as it holds the file, nobody writes until it goes on, or ends).
        """
        position = self._hold()
        if position is None:
            raise RuntimeError("the log has lost its row")
        return position

    def raise_floors(self, tops: Mapping[str, int]) -> None:
        """Raise owners' floors to these positions, where they are lower; the log's row is locked."""
        old = {row["owner_id"]: row["position"] for row in self._unit.all(_FLOORS, owner_ids=sorted(tops))}
        for owner_id, floor in sorted(tops.items()):
            if owner_id not in old:
                self._unit.run(_ADD_FLOOR, owner_id=owner_id, position=floor)
            elif floor > old[owner_id]:
                self._unit.run(_RAISE_FLOOR, owner_id=owner_id, new_position=floor)

    def waiting(self, limit: int) -> list[Row]:
        """Give job and number of at most ``limit`` committed events without a position, in their order."""
        is_mariadb = self._unit.dialect == "mariadb"
        return self._unit.all(_WAITING_MARIADB if is_mariadb else _WAITING, limit=limit)

    def page(self, position: int, limit: int) -> list[Row]:
        """Give at most ``limit`` events of anybody behind a position, in order, each with ``removals``."""
        return self._unit.all(_PAGE, after_position=position, limit=limit)

    def page_of(self, chosen: Filter, position: int, end: int, limit: int) -> list[Row]:
        """Give at most ``limit`` events behind a position and up to ``end`` that a filter may let through."""
        statement = _page_of(chosen.owner_id == EVERYONE, chosen.shape())
        return self._unit.all(
            statement, after_position=position, end=end, limit=limit, **page_parameters(chosen)
        )

    def floor(self, owner_id: str) -> int:
        """Give the position up to which events of an owner, or of anybody (``-``), were removed."""
        row = self._unit.one(_HIGHEST_FLOOR if owner_id == EVERYONE else _FLOOR, owner_id=owner_id)
        if row is None and self.gone([owner_id]):  # whose floor is that of all who are
            row = self._unit.one(_FLOOR, owner_id=GONE)
        return 0 if row is None else row["position"] or 0

    def floors_above(self, position: int) -> dict[str, int]:
        """Give the floors that lie above a position, by their owners; GONE stands for who is deleted."""
        return {
            row["owner_id"]: row["position"] for row in self._unit.all(_FLOORS_ABOVE, after_position=position)
        }

    def gone(self, user_ids: Collection[str]) -> set[str]:
        """Give those of the ids that no user has."""
        found = self._unit.all(_PRESENT, user_ids=list(user_ids)) if user_ids else []
        return set(user_ids) - {row["id"] for row in found}

    def own_workers(self, owner_id: str, worker_ids: Collection[str]) -> set[str]:
        """Give those of the workers that an owner has registered."""
        rows = self._unit.all(_OWN_WORKERS, owner_id=owner_id, worker_ids=list(worker_ids))
        return {row["id"] for row in rows}

    def _hold(self, *, if_free: bool = False) -> int | None:
        """Take the row, and have the database end this transaction once it is silent for a second.

        MySQL ends none for that.
        """
        if self._unit.dialect == "mariadb" and not self._is_impatient and self._can_be_impatient:
            self._is_impatient = self._unit.broken = True  # for good, unless it is committed
            self._unit.run(_IMPATIENT_MARIADB, idle_seconds=_IDLE_SECONDS)
            self._unit.after_commit(self._be_patient)
        if self._unit.dialect == "postgresql":
            lock = _LOCK_IF_FREE_POSTGRESQL if if_free else _LOCK_POSTGRESQL
            row = self._unit.one(lock, idle_ms=str(1000 * _IDLE_SECONDS))
        else:
            row = self._unit.one(_LOCK_IF_FREE if if_free else _LOCK)
        return None if row is None else row["position"]

    @property
    def _can_be_impatient(self) -> bool:
        return bool(getattr(self._unit.connection.dialect, "is_mariadb", False))

    def _be_patient(self) -> None:
        with contextlib.suppress(Unavailable):  # what was committed is kept, and the connection is not
            self._unit.run(_PATIENT_MARIADB)
            self._unit.broken = False

    def _number_one_by_one(self, base: int, limit: int) -> int:
        """Read which are next, then name each: an update that looks for them waits for who still inserts.

        By the key, or MariaDB would read a short table from its beginning, and wait for who removes from it.
        """
        rows = self.waiting(limit)
        if not rows:
            return 0
        return self._unit.run(_number_named(len(rows)), base=base, **_named(rows))


def _named(rows: Sequence[Row]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for place, row in enumerate(rows, 1):
        values[f"job_{place}"], values[f"number_{place}"] = row["job_id"], row["number"]
    return values


@lru_cache(maxsize=BATCH)
def _number_named(size: int) -> sa.TextClause:
    parts = [
        f"SELECT :job_{n} AS job_id, :number_{n} AS number, :base + {n} AS position"
        for n in range(1, size + 1)
    ]
    return system(
        sa.text(
            f"UPDATE ({' UNION ALL '.join(parts)}) AS named STRAIGHT_JOIN job_events AS e "  # noqa: S608 - numbers
            "FORCE INDEX (PRIMARY) ON e.job_id = named.job_id AND e.number = named.number "
            "SET e.position = named.position"
        ),
        "gives everybody's events their place",
        Path.POLLER,
    )


@lru_cache(maxsize=256)
def _page_of(of_everyone: bool, shape: tuple[str, ...]) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    end = events.c.position <= sa.bindparam("end", type_=sa.BigInteger)
    whose = everyone() if of_everyone else owned(events)
    chosen = sa.select(events, *event_columns(shape)).where(whose, _AFTER, end, *event_conditions(shape))
    return chosen.order_by(events.c.position).limit(_LIMIT)
