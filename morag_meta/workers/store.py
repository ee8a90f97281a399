"""Every statement over workers, and the count of the leases that they hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.clock import Clock, clock
from morag_meta.db.schema import jobs, workers
from morag_meta.db.statements import EVERYONE, Path, after_row, everyone, owned, reach, system
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import not_found
from morag_meta.ids import new_id
from morag_meta.jobs.queue import JobQueue

SEEN_EVERY: Final = dt.timedelta(seconds=10)
"""How exact ``last_seen_time`` is: it is not written more often."""
FORGOTTEN_AFTER: Final = dt.timedelta(days=1)
"""How long after it was last seen a worker without a lease is kept."""

_c = workers.c
_ONE = _c.id == sa.bindparam("worker_id")
_BEFORE: sa.BindParameter[dt.datetime] = sa.bindparam("before", type_=_c.last_seen_time.type)

_GET = sa.select(workers, clock).where(_ONE, reach(workers))
_ADD = sa.insert(workers)
_SEEN = (
    sa.update(workers)
    .where(_ONE, owned(workers), _c.last_seen_time <= _BEFORE)
    .values(last_seen_time=sa.bindparam("new_last_seen_time"))
)
_LEASES = system(
    sa.select(jobs.c.worker_id, sa.func.count().label("leases"))
    .where(
        jobs.c.worker_id.in_(sa.bindparam("worker_ids", expanding=True)),
        jobs.c.state == "PROCESSING",
        jobs.c.lease_expire_time > Clock(),
    )
    .group_by(jobs.c.worker_id),
    "counts the leases of workers in reach, whoever's jobs they are",
    Path.QUEUE,
)
_UNSEEN = system(
    sa.select(_c.id)
    .where(
        _c.last_seen_time < _BEFORE,
        ~sa.exists().where(jobs.c.worker_id == _c.id, jobs.c.state == "PROCESSING"),
    )
    .order_by(_c.last_seen_time)
    .limit(sa.bindparam("limit", type_=sa.Integer)),
    "forgets everybody's workers that are gone",
    Path.SWEEPER,
)
_SWEEP = system(
    sa.delete(workers).where(
        _c.id.in_(sa.bindparam("worker_ids", expanding=True)), _c.last_seen_time < _BEFORE
    ),
    "forgets everybody's workers that are gone",
    Path.SWEEPER,
)
_DELETE_ALL = sa.delete(workers).where(owned(workers))


@lru_cache(maxsize=4)
def _page(*, of_everyone: bool, following: bool) -> sa.Select[Any]:
    """The list of workers, newest first: of one owner or of all, the first page or a following one."""
    conditions: list[sa.ColumnElement[bool]] = [everyone() if of_everyone else owned(workers)]
    if following:
        conditions += after_row(_c.create_time, _c.id, descending=True)
    ordered = sa.select(workers).where(*conditions).order_by(_c.create_time.desc(), _c.id.desc())
    return ordered.limit(sa.bindparam("limit", type_=sa.Integer))


class WorkerStore:
    """The workers of one unit of work; ``reach`` is an owner's id, or ``-`` for everybody's."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def add(
        self,
        owner_id: str,
        *,
        name: str,
        kinds: Sequence[str],
        document_types: Sequence[str],
        execution: str | None,
        serves_everyone: bool,
    ) -> Row:
        """Write a new worker; ``execution`` is LOCAL, REMOTE, or None for both.

        Raises:
            NotFound: there is no such owner.
        """
        now = JobQueue(self._unit).now()
        row = {
            "id": new_id(),
            "owner_id": owner_id,
            "name": name,
            "kinds": list(kinds),
            "document_types": list(document_types),
            "execution": execution,
            "serves_everyone": serves_everyone,
            "create_time": now,
            "last_seen_time": now,
        }
        self._unit.run(_ADD, **row)
        return row

    def get(self, reach: str, worker_id: str) -> Row:
        """Give a worker, and the database's ``clock``.

        Raises:
            NotFound: there is none within reach.
        """
        row = self._unit.one(_GET, worker_id=worker_id, owner_id=reach)
        if row is None:
            raise not_found("worker", worker_id)
        return row

    def page(self, reach: str, after: Mapping[str, Any] | None, limit: int) -> list[Row]:
        """List workers of an owner, or of all, newest first, at most ``limit`` after the last one given."""
        parameters = {}
        if after is not None:
            parameters = {"after_create_time": after["create_time"], "after_id": after["id"]}
        statement = _page(of_everyone=reach == EVERYONE, following=after is not None)
        return self._unit.all(statement, owner_id=reach, limit=limit, **parameters)

    def leases(self, worker_ids: Sequence[str]) -> dict[str, int]:
        """Count the living leases of each of the workers that holds any."""
        rows = self._unit.all(_LEASES, worker_ids=list(worker_ids)) if worker_ids else []
        return {row["worker_id"]: int(row["leases"]) for row in rows}

    def seen(self, owner_id: str, worker_id: str, now: dt.datetime) -> None:
        """Note at the database's time that a worker lives; last of all, as no lock is waited for after it."""
        self._unit.run_soon(
            _SEEN, owner_id=owner_id, worker_id=worker_id, new_last_seen_time=now, before=now - SEEN_EVERY
        )

    def sweep(self, limit: int = 1000) -> int:
        """Remove the longest unseen of the workers that are to be forgotten, and give their number.

        Once that is less than ``limit``, none is left.
        """
        before = JobQueue(self._unit).now() - FORGOTTEN_AFTER
        ids = [row["id"] for row in self._unit.all(_UNSEEN, before=before, limit=limit)]
        if ids:
            self._unit.run(_SWEEP, worker_ids=ids, before=before)
        return len(ids)

    def delete_all(self, owner_id: str) -> int:
        """Remove every worker of an owner, and give their number; jobs that they held lose their leases."""
        return self._unit.run(_DELETE_ALL, owner_id=owner_id)
