"""Forgetting who is deleted in what stays of jobs: the floor of the log, and workers that served others.

What is removed with the user's own jobs stands in ``removal.py``.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import job_events as events
from morag_meta.db.schema import job_floors as floors
from morag_meta.db.schema import jobs, workers
from morag_meta.db.statements import Path, owned, system
from morag_meta.db.unit import Unit
from morag_meta.ids import new_id
from morag_meta.jobs.log import GONE, JobLog

_STEP: Final = dt.timedelta(days=1)  # of events that one statement looks through

_FLOOR: Final = sa.select(floors.c.position).where(owned(floors))
_DROP_FLOOR: Final = sa.delete(floors).where(owned(floors))

_SERVED: Final = sa.select(workers.c.id, workers.c.create_time).where(
    owned(workers), workers.c.serves_everyone.is_(True)
)
_WHY: Final = "a worker that served everybody is forgotten in everybody's jobs"
_OLD: Final[sa.BindParameter[str]] = sa.bindparam("old_id")
_NEW: Final[sa.BindParameter[str]] = sa.bindparam("new_id")
_IN_JOBS: Final = system(
    sa.update(jobs).where(jobs.c.worker_id == _OLD).values(worker_id=_NEW), _WHY, Path.PURGE
)
_TIME: Final = events.c.create_time
_BEGIN: Final = sa.bindparam("begin", type_=_TIME.type)
_END: Final = sa.bindparam("end", type_=_TIME.type)


def _in_events(column: sa.Column[Any]) -> sa.Update:
    return system(
        sa.update(events).where(_TIME >= _BEGIN, _TIME < _END, column == _OLD).values({column: _NEW}),
        _WHY,
        Path.PURGE,
    )


_IN_EVENTS: Final = tuple(map(_in_events, (events.c.worker_id, events.c.previous_worker_id)))
_OLDEST: Final = system(sa.select(sa.func.min(_TIME).label("time")), _WHY, Path.PURGE)


class JobForgetting:
    """What is forgotten within one unit of work."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def floor(self, owner_id: str) -> None:
        """Merge the floor of an owner, who has no more jobs, into that of all who are gone."""
        if self._unit.one(_FLOOR, owner_id=owner_id) is None:
            return
        log = JobLog(self._unit)
        log.lock()
        own = self._unit.one(_FLOOR, owner_id=owner_id)
        if own is not None:
            self._unit.run(_DROP_FLOOR, owner_id=owner_id)
            log.raise_floors({GONE: own["position"]})

    def workers(self, owner_id: str) -> None:
        """Call an owner's workers that served everybody by new, random ids in all jobs.

        Jobs are found by an index. Events are looked through from when the worker was registered, a day in
        each statement.
        """
        for worker in self._unit.all(_SERVED, owner_id=owner_id):
            given = {"old_id": worker["id"], "new_id": new_id()}
            self._unit.run(_IN_JOBS, **given)
            oldest = (self._unit.one(_OLDEST) or {}).get("time")
            begin = None if oldest is None else max(oldest, worker["create_time"] - _STEP)
            while begin is not None and begin <= self._unit.now + _STEP:
                for statement in _IN_EVENTS:
                    self._unit.run(statement, **given, begin=begin, end=begin + _STEP)
                begin += _STEP
