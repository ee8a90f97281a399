"""The statements over the queue of jobs: who is next, and what is overdue.

Jobs are leased in the order of ``queue_place``. It holds the priority in its high bits, and below them the
turn: the first waiting turn of anybody, or the one after the owner's own last. So the owners take turns,
however many jobs each of them has (start-time fair queuing, Goyal, Vin and Cheng 1996). Places are taken
without a lock; two that meet share a turn, and the older job goes first. The first waiting turn never falls
while somebody waits, as what comes back to the queue takes it, and not its old one: so the next job of an
owner of whom nothing waits comes before all that is made later, and after one turn of each other owner.

What is bounded, not counting jobs that come back: a job of an owner of whom nothing waits in the priority is
leased after at most one turn of each other owner, whatever else waits and whether it can be leased or not.
Between two turns of an owner that waits no other one has more than two, while all that waits can be leased.
What is not: where a job that cannot be leased (it is delayed, or nobody takes its kind) stands first, whoever
comes later is placed beside it, before the backlog of who was there, and again after each turn.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.clock import Clock, clock
from morag_meta.db.schema import job_checkpoints as checkpoints
from morag_meta.db.schema import jobs
from morag_meta.db.statements import EVERYONE, everyone, owned, system
from morag_meta.db.unit import Row, Unit

_TURNS: Final = 2**40
_MOST_URGENT: Final = 4
WAITING_STATES: Final = ("PENDING", "WAITING_FOR_REMOTE_WORKER")

_c = jobs.c
_JOB = checkpoints.c.job_id == sa.bindparam("job_id")


def _places(name: str, edge: Any, *conditions: sa.ColumnElement[bool]) -> list[sa.Label[Any]]:
    """Find an edge of the waiting places of a priority; state by state, as each is one step in an index."""
    within = (_c.queue_place >= sa.bindparam("low"), _c.queue_place < sa.bindparam("high"))
    return [
        sa.select(edge(_c.queue_place))
        .where(*conditions, _c.state == state, *within)
        .scalar_subquery()
        .label(f"{name}_{number}")
        for number, state in enumerate(WAITING_STATES)
    ]


_EDGES = system(
    sa.select(clock, *_places("first", sa.func.min), *_places("last", sa.func.max, owned(jobs))),
    "the owners take turns, so the place of one follows from the first place of all",
)
_OVERDUE = system(
    sa.select(_c.id, _c.owner_id)
    .where(_c.due_time <= Clock())
    .order_by(_c.due_time)
    .limit(sa.bindparam("limit", type_=sa.Integer)),
    "the reaper looks after everybody's jobs",
)
_SHOWN = (
    *(_c.id, _c.owner_id, _c.state, _c.kind, _c.document_id, _c.document_type),
    *(_c.queue_place, _c.create_time),
)
# What is overdue is the reaper's, but for what may only be left to local workers.
_IS_TIME = sa.and_(
    sa.or_(_c.not_before.is_(None), _c.not_before <= Clock()),
    sa.or_(_c.due_time > Clock(), _c.state == "WAITING_FOR_REMOTE_WORKER"),
)
_READY = system(
    sa.select(*_SHOWN)
    .where(_c.id.in_(sa.bindparam("job_ids", expanding=True)), _c.state.in_(WAITING_STATES), _IS_TIME)
    .order_by(_c.queue_place, _c.create_time, _c.id),
    "wakes those who wait for jobs, and lease only those in their reach",
)
_CLOCK = sa.select(clock)
_CHECKPOINT = sa.select(checkpoints.c.data).where(_JOB, owned(checkpoints))
_FORGET_CHECKPOINT = sa.delete(checkpoints).where(_JOB, owned(checkpoints))
_INSERT_CHECKPOINT = sa.insert(checkpoints)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which waiting jobs a worker takes; an empty part lets every job through."""

    reach: str
    states: tuple[str, ...] = WAITING_STATES
    kinds: tuple[str, ...] = ()
    document_types: tuple[str, ...] = ()


class JobQueue:
    """The queue of one unit of work."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def now(self) -> dt.datetime:
        """Ask the database for its time."""
        row = self._unit.one(_CLOCK)
        if row is None:
            raise RuntimeError("the database has no time")
        time: dt.datetime = row["clock"]
        return time

    def place(self, owner_id: str, priority: int) -> tuple[int, dt.datetime]:
        """Give the place of a new job of an owner, and the database's clock."""
        low = (_MOST_URGENT - priority) * _TURNS
        row = self._unit.one(_EDGES, owner_id=owner_id, low=low, high=low + _TURNS)
        if row is None:
            raise RuntimeError("the database has no time")
        first = [row[f"first_{number}"] for number in (0, 1) if row[f"first_{number}"] is not None]
        last = [row[f"last_{number}"] + 1 for number in (0, 1) if row[f"last_{number}"] is not None]
        return max([min(first, default=low), *last]), row["clock"]

    def front(self, priority: int) -> int:
        """Give the place of a job that comes back to the queue: among the first, and before younger ones."""
        return self.place("", priority)[0]

    def candidates(self, wanted: Wanted, limit: int) -> list[Row]:
        """Give at most ``limit`` jobs that can be leased now, the next first; none of them is locked."""
        found: list[Row] = []
        for state in wanted.states:
            statement = _candidates(wanted.reach == EVERYONE, bool(wanted.kinds), bool(wanted.document_types))
            lists = {name: list(getattr(wanted, name)) for name in ("kinds", "document_types")}
            given = {name: values for name, values in lists.items() if values}
            found += self._unit.all(statement, owner_id=wanted.reach, in_state=state, limit=limit, **given)
        return sorted(found, key=_order)[:limit]

    def ready(self, job_ids: Collection[str]) -> list[Row]:
        """Give those of the jobs, whosever, that can be leased now, the next first."""
        return self._unit.all(_READY, job_ids=list(job_ids))

    def overdue(self, limit: int) -> list[Row]:
        """Give id and owner of at most ``limit`` jobs that the reaper is to look at, the oldest due first."""
        return self._unit.all(_OVERDUE, limit=limit)

    def checkpoint(self, owner_id: str, job_id: str) -> bytes:
        """Give what was saved for the next attempt of a job; empty where nothing was."""
        row = self._unit.one(_CHECKPOINT, owner_id=owner_id, job_id=job_id)
        return b"" if row is None else bytes(row["data"])

    def save_checkpoint(self, job: Row, data: bytes) -> None:
        """Save something for the next attempt of a locked job; empty data removes what is there."""
        self._unit.run(_FORGET_CHECKPOINT, owner_id=job["owner_id"], job_id=job["id"])
        if data:
            self._unit.run(
                _INSERT_CHECKPOINT,
                job_id=job["id"],
                owner_id=job["owner_id"],
                attempt=job["attempt"],
                data=data,
                update_time=job["clock"],
            )


def _order(row: Row) -> tuple[Any, ...]:
    return row["queue_place"], row["create_time"], row["id"]


@lru_cache(maxsize=8)
def _candidates(of_everyone: bool, kinds: bool, document_types: bool) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    conditions = [everyone() if of_everyone else owned(jobs), _c.state == sa.bindparam("in_state")]
    if kinds:
        conditions.append(_c.kind.in_(sa.bindparam("kinds", expanding=True)))
    if document_types:
        conditions.append(_c.document_type.in_(sa.bindparam("document_types", expanding=True)))
    conditions.append(_IS_TIME)
    return (
        sa.select(*_SHOWN)
        .where(*conditions)
        .order_by(_c.queue_place, _c.create_time, _c.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )
