"""Removing jobs that have ended, and events that are too old, from the log that watchers follow.

Whoever watches learns of it by the log's row and the owner's floor, which are raised with every removal; so
an event that nobody can read any more is never missed in silence. Locks are taken without waiting, jobs
before the log, whose row is held last and shortly: the sequencer needs it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import job_checkpoints as checkpoints
from morag_meta.db.schema import job_events as events
from morag_meta.db.schema import job_log as log
from morag_meta.db.schema import jobs
from morag_meta.db.statements import EVERYONE, Path, owned, reach, system
from morag_meta.db.unit import Row, Unit
from morag_meta.jobs.listing import Filter, conditions_of, parameters_of
from morag_meta.jobs.log import JobLog
from morag_meta.jobs.queue import JobQueue

MOST_JOBS: Final = 1000
_MOST_EVENTS: Final = 20_000  # of one transaction, so that it stays far from a statement's limit
_BATCH_JOBS: Final = 250  # of an owner who goes with all jobs: the log's row is held again and again
_BATCH_EVENTS: Final = 5000
_MOST_LOOKS: Final = 20  # for old events of jobs that nobody holds
_CHUNK: Final = 500  # MariaDB turns lists of a thousand into something slower

_e, _c = events.c, jobs.c
_LIMIT: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
_JOBS: sa.BindParameter[Any] = sa.bindparam("job_ids", expanding=True)

_LOCK = sa.select(_c.id).where(_c.id.in_(_JOBS), reach(jobs)).with_for_update(skip_locked=True)
_SUCCESSORS = sa.select(_c.id, _c.predecessor_id).where(_c.predecessor_id.in_(_JOBS), reach(jobs))
_UNLINK = sa.update(jobs).where(_c.predecessor_id.in_(_JOBS), reach(jobs)).values(predecessor_id=sa.null())
_ALL = sa.select(_c.id, _c.event_number).where(owned(jobs)).order_by(_c.create_time, _c.id)
_LOCK_ALL = sa.select(_c.id).where(owned(jobs)).with_for_update()
_TOPS = (
    sa.select(
        _e.owner_id,
        sa.func.max(_e.position).label("position"),
        (sa.func.count() - sa.func.count(_e.position)).label("waiting"),
    )
    .where(_e.job_id.in_(_JOBS), reach(events))
    .group_by(_e.owner_id)
)
_NUMBERED = _e.position.is_not(None)
_DELETE_NUMBERED = sa.delete(events).where(_e.job_id.in_(_JOBS), reach(events), _NUMBERED)
_DELETE_EVENTS = sa.delete(events).where(_e.job_id.in_(_JOBS), reach(events))
_DELETE_CHECKPOINTS = sa.delete(checkpoints).where(checkpoints.c.job_id.in_(_JOBS), reach(checkpoints))
_DELETE_JOBS = sa.delete(jobs).where(_c.id.in_(_JOBS), reach(jobs))

_old = (
    sa.select(_e.job_id, _e.owner_id, _e.number, _e.position)
    .join(jobs, _c.id == _e.job_id)
    .where(_e.create_time < sa.bindparam("before", type_=_e.create_time.type))
    .where(_NUMBERED, _e.number < _c.event_number)
    .where(_e.job_id.not_in(sa.bindparam("passed_over", expanding=True)))
    .order_by(_e.create_time)
    .limit(_LIMIT)
    .subquery("old")
)
OLD_EVENTS = system(
    sa.select(
        _old.c.job_id,
        _old.c.owner_id,
        sa.func.max(_old.c.number).label("number"),
        sa.func.max(_old.c.position).label("position"),
    ).group_by(_old.c.job_id, _old.c.owner_id),
    "the old events of everybody go",
    Path.SWEEPER,
)
_TRIM = sa.delete(events).where(
    _e.job_id == sa.bindparam("job_id"), owned(events), _e.number <= sa.bindparam("last_number"), _NUMBERED
)
_TELL = sa.update(log).values(position=sa.bindparam("new_position"), removals=log.c.removals + 1)


@dataclass(frozen=True, slots=True)
class Purged:
    """How many jobs were removed, and whether there are more."""

    jobs: int
    more: bool


class JobRemovals:
    """Removes within one unit of work."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit
        self._log = JobLog(unit)

    def purge(self, chosen: Filter, before: dt.datetime, limit: int = MOST_JOBS) -> Purged:
        """Remove jobs of a filter that ended before a time, the longest ended first.

        At most ``limit``, and fewer where they have very many events, or somebody else is at some of them.
        """
        shape = chosen.owner_id == EVERYONE, chosen.shape()
        given = {"before": before, "limit": limit + 1, **parameters_of(chosen)}
        ended = self._unit.all(_ended(*shape), **given)
        # Before they are counted, or one job of many events that somebody holds would keep all others.
        free = set(self.take(chosen.owner_id, [row["id"] for row in ended[:limit]]))
        taken = [row["id"] for row in _few_enough(row for row in ended if row["id"] in free)]
        self.remove(chosen.owner_id, taken)
        return Purged(len(taken), more=len(taken) < len(ended))

    def expire_jobs(self, age: dt.timedelta, limit: int = MOST_JOBS) -> int:
        """Remove the longest ended of the jobs that ended so long ago, and give their number."""
        return self.purge(Filter(EVERYONE), JobQueue(self._unit).now() - age, limit).jobs

    def expire_events(self, age: dt.timedelta, limit: int = 1000) -> int:
        """Remove the oldest of the events that were written so long ago, and give their number.

        A job's newest event stays for as long as the job, and so does what has no position yet.
        """
        before = JobQueue(self._unit).now() - age
        found: dict[str, Row] = {}
        free: set[str] = set()
        passed_over = [""]
        for _ in range(_MOST_LOOKS):
            rows = self._unit.all(OLD_EVENTS, before=before, limit=limit, passed_over=passed_over)
            found = {row["job_id"]: row for row in rows}
            free = set(self._lock(EVERYONE, list(found)))
            if free or not found:
                break
            passed_over += found  # one job that somebody holds may have them all
        trimmed = {job_id: self._trim(found[job_id]) for job_id in sorted(free)}
        removed = sum(trimmed.values())
        if removed:
            self._tell(_highest(found[job_id] for job_id, count in trimmed.items() if count))
        return removed

    def batches(self, owner_id: str) -> list[list[str]]:
        """Give the ids of every job of an owner, in parts that one transaction each may take and remove."""
        return list(_batches(self._unit.all(_ALL, owner_id=owner_id)))

    def remove_all(self, owner_id: str) -> int:
        """Remove every job of an owner, ended or not, and give their number.

        In one transaction, so for those that are left when ``batches`` are gone.
        """
        every = [row["id"] for row in self._unit.all(_LOCK_ALL, owner_id=owner_id)]
        self.remove(owner_id, every)
        return len(every)

    def take(self, owner_id: str, job_ids: Sequence[str]) -> list[str]:
        """Lock jobs, and those that name them as predecessors, as far as nobody else has locked them."""
        taken = set(self._lock(owner_id, job_ids))
        after = {
            row["id"]: row["predecessor_id"]
            for ids in _chunks(sorted(taken))
            for row in self._unit.all(_SUCCESSORS, owner_id=owner_id, job_ids=ids)
        }
        others = sorted(after.keys() - taken)
        busy = set(others) - set(self._lock(owner_id, others))
        taken -= {after[job_id] for job_id in busy}
        return [job_id for job_id in job_ids if job_id in taken]

    def remove(self, owner_id: str, job_ids: Sequence[str]) -> None:
        """Remove jobs that were taken, so that nothing is added to them; of none the log is not told."""
        if not job_ids:
            return
        tops: list[Row] = []
        for ids in _chunks(job_ids):
            given = {"owner_id": owner_id, "job_ids": ids}
            tops += self._unit.all(_TOPS, **given)
            for statement in (_DELETE_NUMBERED, _DELETE_CHECKPOINTS, _UNLINK):
                self._unit.run(statement, **given)
        unseen = {row["owner_id"] for row in tops if row["waiting"]}
        if unseen:  # the sequencer may be at them, so they wait for the log
            self._log.lock()
        for ids in _chunks(job_ids):
            given = {"owner_id": owner_id, "job_ids": ids}
            if unseen:
                self._unit.run(_DELETE_EVENTS, **given)
            self._unit.run(_DELETE_JOBS, **given)
        self._tell(_highest(tops), unseen)

    def _trim(self, old: Row) -> int:
        """Remove the events of a locked job up to a number; none are left where others were faster."""
        return self._unit.run(
            _TRIM, job_id=old["job_id"], owner_id=old["owner_id"], last_number=old["number"]
        )

    def _lock(self, owner_id: str, job_ids: Sequence[str]) -> Iterator[str]:
        for ids in _chunks(job_ids):
            yield from (row["id"] for row in self._unit.all(_LOCK, owner_id=owner_id, job_ids=ids))

    def _tell(self, tops: Mapping[str, int], unseen: Collection[str] = ()) -> None:
        """Raise owners' floors to the highest position that was removed.

        Where what was removed was ``unseen``, as it had no position yet, it takes the next one.
        """
        position = self._log.lock()
        if unseen:
            position += 1
        new = {**tops, **dict.fromkeys(unseen, position)}
        self._log.raise_floors(new)
        self._unit.run(_TELL, new_position=position)


@lru_cache(maxsize=512)
def _ended(of_everyone: bool, shape: tuple[str, ...]) -> sa.Select[Any]:  # noqa: FBT001 - the key of a cache
    before = sa.bindparam("before", type_=_c.end_time.type)
    ended = sa.select(_c.id, _c.event_number).where(*conditions_of(of_everyone, shape), _c.end_time < before)
    return ended.order_by(_c.end_time).limit(_LIMIT)


def _few_enough(rows: Iterable[Row]) -> Iterator[Row]:
    """Give rows until their events are too many for one transaction; at least one."""
    count = 0
    for row in rows:
        if count and count + row["event_number"] > _MOST_EVENTS:
            return
        count += row["event_number"]
        yield row


def _batches(rows: Iterable[Row]) -> Iterator[list[str]]:
    """Give the ids of jobs in parts of few enough jobs and events; at least one job in each."""
    batch: list[str] = []
    count = 0
    for row in rows:
        if len(batch) == _BATCH_JOBS or (batch and count + row["event_number"] > _BATCH_EVENTS):
            yield batch
            batch, count = [], 0
        batch.append(row["id"])
        count += row["event_number"]
    if batch:
        yield batch


def _highest(rows: Iterable[Row]) -> dict[str, int]:
    """Give the highest position of each owner that has any."""
    highest: dict[str, int] = {}
    for row in rows:
        if row["position"] is not None:
            highest[row["owner_id"]] = max(row["position"], highest.get(row["owner_id"], 0))
    return highest


def _chunks(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(job_ids), _CHUNK):
        yield job_ids[start : start + _CHUNK]
