"""Jobs and events written straight into their tables: of any age, many at once."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.schema import job_events, job_floors, job_log, jobs
from morag_meta.ids import new_id
from morag_meta.jobs.listing import Filter
from morag_meta.jobs.removal import Purged
from morag_meta.jobs.rows import queue_of
from morag_meta.jobs.rules import FINAL_STATES
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user

_FAILURES: Final = {"FAILED": "REPORTED"}
_LEASE: Final = dt.timedelta(seconds=90)
_TOLD: Final = ("state", "attempt", "percentage", "phase", "summary", "kind", "document_type", "owner_id")


def write_jobs(
    uow: UnitOfWork,
    owner_id: str,
    given: Iterable[Mapping[str, Any]],
    *,
    events: int = 2,
    first: int | None = 1,
) -> list[str]:
    """Write jobs of an owner, as FINISHED a minute ago unless the columns given say otherwise.

    Each has so many events. Positions count from ``first`` on; None leaves them open.
    """
    now = uow.queue.now()
    rows = [_row(now, owner_id, columns) for columns in given]
    for batch in _batches(rows):
        uow.run_many(sa.insert(jobs), batch)
    places = itertools.repeat(None) if first is None else itertools.count(first)
    told = [
        {name: row[name] for name in _TOLD}
        | {"job_id": row["id"], "number": number, "create_time": row["update_time"], "position": next(places)}
        for row in rows
        for number in range(1, events + 1)
    ]
    for batch in _batches(told):
        uow.run_many(sa.insert(job_events), batch)
    return [row["id"] for row in rows]


def _batches(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Give rows in parts that a busy machine writes within the limit of a statement."""
    for start in range(0, len(rows), 250):
        yield rows[start : start + 250]


_SAME: Final[Mapping[str, Any]] = {
    "kind": "X",
    "execution": "LOCAL",
    "priority": 2,
    "document_type": None,
    "database_id": None,
    "report_number": 0,
    "percentage": 0,
    "phase": "",
    "summary": "",
    "parameters": {},
    "predecessor_id": None,
    "event_number": 2,
    "max_attempts": 3,
    "lost_leases": 0,
    "schedule_to_start_ms": 1000,
    "start_to_close_ms": 1000,
    "schedule_to_close_ms": 604_800_000,
    "worker_id": None,
    "revision": 1,
}


def _row(now: dt.datetime, owner_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    time = given.get("end_time") or now - dt.timedelta(minutes=1)
    state = given.get("state", "FINISHED")
    final, runs = state in FINAL_STATES, state == "PROCESSING"
    return {
        **_SAME,
        "id": new_id(),
        "owner_id": owner_id,
        "state": state,
        "queue": queue_of({**_SAME, "owner_id": owner_id, "state": state, **given}),
        "attempt": int(final or runs),
        "close_time": now + dt.timedelta(days=7),
        "due_time": None if final else now + dt.timedelta(days=1),
        "queue_time": time,
        "ready_time": time,
        "lease_token": "token" if runs else None,
        "lease_ms": 90_000 if runs else None,
        "lease_expire_time": now + _LEASE if runs else None,
        "failure": _FAILURES.get(state),
        "run_ms": 1000 if final else None,
        "start_time": time if runs else None,
        "end_time": time if final else None,
        "create_time": time,
        "update_time": time,
        **given,
    }


class Shelf:
    """A database with jobs of several owners, and what is left of them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._owners = 0
        self.now: dt.datetime = self.do(lambda uow: uow.queue.now())

    def do(self, work: Callable[[UnitOfWork], Any]) -> Any:
        """Do something in a transaction."""
        with self.database.unit_of_work() as uow:
            done = work(uow)
            uow.commit()
        return done

    def owner(self) -> str:
        """Make an owner."""
        self._owners += 1
        made = self.do(lambda uow: create_user(uow, name="Owner", email=f"o{self._owners}@example.org"))
        return str(made["id"])

    def write(self, owner_id: str, *given: dict[str, Any], **how: Any) -> list[str]:
        """Write jobs."""
        written: list[str] = self.do(lambda uow: write_jobs(uow, owner_id, given, **how))
        return written

    def purge(self, owner_id: str, before: dt.datetime | None = None, limit: int = 1000) -> Purged:
        """Remove the jobs of an owner that ended before a time, or now."""
        chosen, end = Filter(owner_id), before or self.now + dt.timedelta(hours=1)
        purged: Purged = self.do(lambda uow: uow.job_removals.purge(chosen, end, limit))
        return purged

    def column(self, statement: sa.Select[Any]) -> list[Any]:
        """Read one column."""
        with self.database.unit_of_work() as uow:
            return list(uow.connection.execute(statement).scalars())

    def job_ids(self) -> set[str]:
        """Give the jobs that are there."""
        return set(self.column(sa.select(jobs.c.id)))

    def floors(self) -> dict[str, int]:
        """Give the floor of each owner that has one."""
        with self.database.unit_of_work() as uow:
            return {row.owner_id: row.position for row in uow.connection.execute(sa.select(job_floors))}

    def log(self) -> tuple[int, int]:
        """Give the log's position and how often something was removed."""
        with self.database.unit_of_work() as uow:
            row = uow.connection.execute(sa.select(job_log)).one()
        return row.position, row.removals

    def age_events(self, job_id: str, ages: Sequence[dt.timedelta]) -> None:
        """Have a job's events been written so long ago."""
        with self.database.unit_of_work() as uow:
            for number, age in enumerate(ages, 1):
                one = (job_events.c.job_id == job_id, job_events.c.number == number)
                old = sa.update(job_events).where(*one).values(create_time=self.now - age)
                uow.connection.execute(old)
            uow.commit()

    def numbers(self, job_id: str) -> list[int]:
        """Give the numbers of the events of a job that are kept."""
        kept = sa.select(job_events.c.number).where(job_events.c.job_id == job_id)
        return self.column(kept.order_by(job_events.c.number))
