"""The statements over jobs and their events, but for those that list jobs (``listing.py``).

Every change of a job goes through ``add`` or ``change``, which write the row and its event together:
numbers 1, 2, 3 … without a gap, because they are taken under the lock of the job's row.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.auth.narrowing import Whose, owner_of
from morag_meta.auth.sharing import Grantee
from morag_meta.db.clock import Clock, clock
from morag_meta.db.counted import Resource, add, counted
from morag_meta.db.schema import database_grants as grants
from morag_meta.db.schema import job_events as events
from morag_meta.db.schema import job_log, jobs
from morag_meta.db.statements import Path, find_shared, narrow, owned, reach, shared, system
from morag_meta.db.types import UtcDateTime
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import Collision, not_found
from morag_meta.jobs.limits import due_time
from morag_meta.jobs.listing import Filter, Order, page_parameters, page_statement, snapshot_statement
from morag_meta.jobs.removal import JobRemovals
from morag_meta.jobs.rows import event_of, new_job, queue_of
from morag_meta.jobs.rules import Verb, after
from morag_meta.jobs.turns import JobTurns, turns_begun

TOPIC: Final = "jobs/"
"""What a committed change of a job announces, with the job's id behind it."""
LOG_TOPIC: Final = "log/"
"""What is announced when events got their positions."""

_ONE = jobs.c.id == sa.bindparam("job_id")
_OF_JOB = events.c.job_id == sa.bindparam("job_id")
_LIMIT: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)

_GET = sa.select(jobs).where(_ONE, reach(jobs))
_LOCK = sa.select(jobs, clock).where(_ONE, reach(jobs)).with_for_update()
_SHARED = shared(jobs, jobs.c.database_id).where(_ONE)
_LOCK_SHARED = _SHARED.add_columns(clock).with_for_update()
_LOCK_IF_FREE = _LOCK.with_for_update(skip_locked=True)
_FIND_OPEN = sa.select(jobs.c.id).where(owned(jobs), jobs.c.open_document_id == sa.bindparam("open_of"))
_INSERT = counted(sa.insert(jobs)).returning(turns_begun())
_INSERT_EVENT = sa.insert(events)
_EVENTS = (
    sa.select(events)
    .where(_OF_JOB, reach(events), events.c.number > sa.bindparam("after_number"))
    .order_by(events.c.number)
    .limit(_LIMIT)
)
_PLACE = (
    jobs.c.owner_id,
    jobs.c.database_id,
    jobs.c.event_number,
    jobs.c.state,
    sa.select(sa.func.min(events.c.number)).where(_OF_JOB).scalar_subquery().label("oldest"),
    sa.select(job_log.c.position).scalar_subquery().label("log_position"),
    sa.select(job_log.c.removals).scalar_subquery().label("removals"),
)
_POSITION = sa.select(*_PLACE).where(_ONE, reach(jobs))
_POSITION_SHARED = _SHARED.with_only_columns(*_PLACE, grants.c.level.label("granted_level"))
_NEWEST = system(
    sa.select(jobs.c.id, jobs.c.event_number).where(jobs.c.id.in_(sa.bindparam("job_ids", expanding=True))),
    "wakes watchers, whose access to the job was checked when they came",
    Path.POLLER,
)
_OVERDUE = system(
    sa.select(jobs.c.id, jobs.c.due_time, clock)
    .where(jobs.c.due_time <= Clock(), jobs.c.due_time >= sa.bindparam("from_time", type_=UtcDateTime()))
    .order_by(jobs.c.due_time)
    .limit(_LIMIT),
    "the reaper looks after everybody's jobs",
    Path.REAPER,
)


@cache
def _change(columns: frozenset[str]) -> sa.Update:
    """Write the named columns of one job that still is as it was read."""
    return (
        sa.update(jobs)
        .where(_ONE, owned(jobs), jobs.c.revision == sa.bindparam("old_revision"))
        .values({column: sa.bindparam(f"new_{column}") for column in sorted(columns)})
    )


_RENEW = (
    sa.update(jobs)
    .where(_ONE, owned(jobs))
    .values(lease_expire_time=sa.bindparam("new_lease_expire_time"), due_time=sa.bindparam("new_due_time"))
)
_CORRECT = sa.update(jobs).where(_ONE, owned(jobs)).values(due_time=sa.bindparam("new_due_time"))


class JobStore:
    """The jobs of one unit of work.

    ``reach`` is an owner's id, or ``-`` for everybody's, or what of it an API key reaches.
    """

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def get(self, reach: Whose, job_id: str, grantee: Grantee | None = None) -> Row:
        """Give a job; also one beyond reach of a database that is shared with a grantee.

        Raises:
            NotFound: there is none within reach, and none shared.
            Forbidden: it is shared, but not for what is needed (GRANT_TOO_LOW).
        """
        statement, bound = narrow(_GET, jobs.c.database_id, reach)
        row = self._unit.one(statement, job_id=job_id, **bound)
        row = row or find_shared(self._unit, _SHARED, grantee, job_id=job_id)
        if row is None:
            raise not_found("job", job_id)
        return row

    def lock(self, reach: Whose, job_id: str, grantee: Grantee | None = None) -> Row:
        """Give a job as ``get`` does that nobody else changes before this unit ends, nor the grant.

        With it the database's ``clock``.

        Raises:
            NotFound, Forbidden: as ``get``.
        """
        statement, bound = narrow(_LOCK, jobs.c.database_id, reach)
        row = self._unit.one(statement, job_id=job_id, **bound)
        row = row or find_shared(self._unit, _LOCK_SHARED, grantee, job_id=job_id)
        if row is None:
            raise not_found("job", job_id)
        return _in_order(row)

    def lock_if_free(self, reach: str, job_id: str) -> Row | None:
        """Give a job as ``lock`` does, or None where somebody else has locked it, or it is gone."""
        row = self._unit.one(_LOCK_IF_FREE, job_id=job_id, owner_id=reach)
        return None if row is None else _in_order(row)

    def find_open_ingestion(self, owner_id: str, document_id: str) -> str | None:
        """Give the id of the open INGESTION job of a document."""
        row = self._unit.one(_FIND_OPEN, owner_id=owner_id, open_of=document_id)
        return None if row is None else row["id"]

    def page(self, chosen: Filter, order: Order, after: Row | None, limit: int) -> list[Row]:
        """Give at most ``limit`` jobs that pass the filter, in the order, after the row ``after``."""
        statement = page_statement(chosen, order, following=after is not None)
        return self._unit.all(statement, limit=limit, **page_parameters(chosen, order, after))

    def snapshot(self, chosen: Filter, after: Row | None, limit: int) -> list[Row]:
        """Give a page of jobs, the newest first, each with the ``newest_position`` of its events.

        That is null where the newest one has no position yet.
        """
        order = Order("create_time", descending=True)
        statement = snapshot_statement(chosen, following=after is not None)
        return self._unit.all(statement, limit=limit, **page_parameters(chosen, order, after))

    def add(self, owner_id: str, state: str, fields: Mapping[str, Any]) -> Row:
        """Write a new job and its first event; columns that are not given have their defaults.

        ``clock``, ``kind``, ``priority`` and ``start_to_close_ms`` must be given.

        Raises:
            AlreadyExists: its document has an open INGESTION job (JOB_ALREADY_OPEN).
            NotFound: there is no such owner.
        """
        row = new_job(owner_id, state, fields)
        asked = {"turns_of": owner_id, "turns_at": row["priority"]}
        added = add(self._unit, _INSERT, row, Resource.OPEN_JOBS, **asked)
        if not added["turns_begun"]:
            JobTurns(self._unit).open(owner_id, row["priority"])
        self._append_event(None, row)
        return row

    def change(self, row: Row, **changes: Any) -> Row:
        """Write columns of a locked job together with the event that tells it, and give the new row.

        ``due_time`` and ``queue`` follow by themselves.

        Raises:
            Collision: the job is not as ``row`` says any more.
        """
        written = {
            **changes,
            "event_number": row["event_number"] + 1,
            "revision": row["revision"] + 1,
            "update_time": row["clock"],
        }
        new = {**row, **written}
        written |= {"due_time": due_time(new), "queue": queue_of(new)}
        changed = self._unit.run(
            _change(frozenset(written)),
            job_id=row["id"],
            owner_id=row["owner_id"],
            old_revision=row["revision"],
            **{f"new_{column}": value for column, value in written.items()},
        )
        if not changed:
            raise Collision
        new = {**row, **written}
        self._append_event(row, new)
        return new

    def end(self, row: Row, verb: Verb, **changes: Any) -> Row:
        """End a locked job for ever; what held its lease stays to be seen.

        Raises:
            WrongState: it has ended, or was not started.
        """
        state, now = after(row["state"], verb), row["clock"]
        ran = max(now - row["start_time"], dt.timedelta()) if row["state"] == "PROCESSING" else None
        return self.change(
            row,
            state=state,
            end_time=now,
            open_document_id=None,
            lease_expire_time=None,
            run_ms=None if ran is None else ran // dt.timedelta(milliseconds=1),
            **changes,
        )

    def renew(self, row: Row, expire_time: dt.datetime) -> None:
        """Let the lease of a locked job live until a time; no change of the job, so there is no event."""
        due = due_time({**row, "lease_expire_time": expire_time})
        self._unit.run_soon(
            _RENEW,
            job_id=row["id"],
            owner_id=row["owner_id"],
            new_lease_expire_time=expire_time,
            new_due_time=due,
        )

    def correct_due_time(self, row: Row) -> None:
        """Have the reaper look at a locked job when its limits say, and not before."""
        self._unit.run(_CORRECT, job_id=row["id"], owner_id=row["owner_id"], new_due_time=due_time(row))

    def cancel_open_ingestion(self, owner_id: str, document_id: str, *, summary: str) -> str | None:
        """Cancel the open INGESTION job of a document, whose row is locked; give the job's id, if any.

        The document's state is the caller's matter.
        """
        job_id = self.find_open_ingestion(owner_id, document_id)
        if job_id is None:
            return None
        row = self.lock(owner_id, job_id)
        if row["open_document_id"] is None:  # it ended while its lock was waited for
            return None
        self.end(row, Verb.CANCEL, summary=summary)
        return job_id

    def position(self, reach: Whose, job_id: str, grantee: Grantee | None = None) -> Row:
        """Give ``event_number``, ``state`` and the number of the ``oldest`` event that is kept.

        With them the log's ``log_position`` and ``removals``, all as of one moment, and the job's
        ``owner_id`` and ``database_id``, with the ``granted_level`` where the job was found by a grant.

        Raises:
            NotFound, Forbidden: as ``get``.
        """
        statement, bound = narrow(_POSITION, jobs.c.database_id, reach)
        row = self._unit.one(statement, job_id=job_id, **bound)
        row = row or find_shared(self._unit, _POSITION_SHARED, grantee, job_id=job_id)
        if row is None:
            raise not_found("job", job_id)
        return row

    def events_after(self, reach: Whose, job_id: str, number: int, limit: int) -> list[Row]:
        """Give at most ``limit`` events of a job within reach that follow a number, in their order."""
        given = {"job_id": job_id, "owner_id": owner_of(reach), "after_number": number, "limit": limit}
        return self._unit.all(_EVENTS, **given)

    def newest_events(self, job_ids: Collection[str]) -> dict[str, int]:
        """Give the number of the newest event of each job that exists."""
        rows = self._unit.all(_NEWEST, job_ids=list(job_ids))
        return {row["id"]: row["event_number"] for row in rows}

    def overdue(self, from_time: dt.datetime, limit: int) -> list[Row]:
        """Give the jobs that the reaper is to look at, the oldest due first, none due before a time.

        Of each ``id`` and ``due_time``, and the database's ``clock``.
        """
        return self._unit.all(_OVERDUE, from_time=from_time, limit=limit)

    def delete_all(self, owner_id: str) -> int:
        """Remove every job of an owner for good, with its events; give the number of jobs."""
        return JobRemovals(self._unit).remove_all(owner_id)

    def _append_event(self, before: Row | None, row: Row) -> None:
        self._unit.run_soon(_INSERT_EVENT, **event_of(before, row))
        self._unit.announce(TOPIC + row["id"])


def _in_order(row: Row) -> Row:
    """Let the clock of a locked row not be before its last change, which it may have waited for."""
    return row if row["clock"] >= row["update_time"] else {**row, "clock": row["update_time"]}
