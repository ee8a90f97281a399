"""The statements over the queue of jobs: who is next, and what the next attempt receives.

The more urgent job is next; within a priority the owners take turns (``turns.py``), and of an owner the job
that could be leased first is the next. One that comes back keeps its age, and so comes before younger ones.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.clock import read_clock
from morag_meta.db.schema import job_checkpoints as checkpoints
from morag_meta.db.schema import jobs
from morag_meta.db.statements import EVERYONE, Path, owned, system
from morag_meta.db.unit import Row, Unit
from morag_meta.jobs.turns import JobTurns
from morag_meta.jobs.wanted import LIMIT, SHOWN, WAITING_STATES, Wanted, conditions, order

_c = jobs.c
_JOB = checkpoints.c.job_id == sa.bindparam("job_id")
_NOTHING_CHOSEN: Final[frozenset[str]] = frozenset()
_READY = system(
    sa.select(*SHOWN)
    .where(
        _c.id.in_(sa.bindparam("job_ids", expanding=True)),
        _c.state.in_(WAITING_STATES),
        *conditions(_c, _NOTHING_CHOSEN),
    )
    .order_by(_c.priority.desc(), _c.ready_time, _c.id),
    "wakes those who wait for jobs, and lease only those in their reach",
    Path.QUEUE,
)
_CHECKPOINT = sa.select(checkpoints.c.data).where(_JOB, owned(checkpoints))
_FORGET_CHECKPOINT = sa.delete(checkpoints).where(_JOB, owned(checkpoints))
_INSERT_CHECKPOINT = sa.insert(checkpoints)


class JobQueue:
    """The queue of one unit of work."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit
        self.turns = JobTurns(unit)

    def now(self) -> dt.datetime:
        """Ask the database for its time."""
        return read_clock(self._unit)

    def candidates(self, wanted: Wanted, limit: int) -> list[Row]:
        """Give at most ``limit`` jobs that can be leased now, the next first; none of them is locked."""
        if wanted.reach == EVERYONE:
            return self.turns.candidates(wanted, limit)
        found: list[Row] = []
        for state in wanted.states:
            found += self._unit.all(
                _of_owner(wanted.chosen), owner_id=wanted.reach, in_state=state, limit=limit, **wanted.lists
            )
        return sorted(found, key=order)[:limit]

    def ready(self, job_ids: Collection[str]) -> list[Row]:
        """Give those of the jobs, whosever, that can be leased now, the next first."""
        return self._unit.all(_READY, job_ids=list(job_ids))

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


@lru_cache(maxsize=32)
def _of_owner(chosen: frozenset[str]) -> sa.Select[Any]:
    """Find the jobs of one owner that can be leased, by priority and then by age."""
    return (
        sa.select(*SHOWN)
        .where(owned(jobs), _c.state == sa.bindparam("in_state"), *conditions(_c, chosen))
        .order_by(_c.queue, _c.ready_time, _c.id)
        .limit(LIMIT)
    )
