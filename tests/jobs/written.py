"""Jobs and events written straight into their tables: of any age, many at once."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import job_events, jobs
from morag_meta.ids import new_id
from morag_meta.jobs.rules import FINAL_STATES
from morag_meta.uow import UnitOfWork

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
    uow.run_many(sa.insert(jobs), rows)
    places = itertools.repeat(None) if first is None else itertools.count(first)
    told = [
        {name: row[name] for name in _TOLD}
        | {"job_id": row["id"], "number": number, "create_time": row["update_time"], "position": next(places)}
        for row in rows
        for number in range(1, events + 1)
    ]
    uow.run_many(sa.insert(job_events), told)
    return [row["id"] for row in rows]


def _row(now: dt.datetime, owner_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    time = given.get("end_time") or now - dt.timedelta(minutes=1)
    state = given.get("state", "FINISHED")
    final, runs = state in FINAL_STATES, state == "PROCESSING"
    return {
        "id": new_id(),
        "owner_id": owner_id,
        "kind": "X",
        "state": state,
        "execution": "LOCAL",
        "priority": 2,
        "document_type": None,
        "database_id": None,
        "attempt": int(final or runs),
        "report_number": 0,
        "percentage": 0,
        "phase": "",
        "summary": "",
        "parameters": {},
        "predecessor_id": None,
        "event_number": 2,
        "queue_place": 0,
        "max_attempts": 3,
        "lost_leases": 0,
        "schedule_to_start_ms": 1000,
        "start_to_close_ms": 1000,
        "schedule_to_close_ms": 604_800_000,
        "close_time": now + dt.timedelta(days=7),
        "due_time": None if final else now + dt.timedelta(days=1),
        "queue_time": time,
        "worker_id": None,
        "lease_token": "token" if runs else None,
        "lease_ms": 90_000 if runs else None,
        "lease_expire_time": now + _LEASE if runs else None,
        "failure": _FAILURES.get(state),
        "run_ms": 1000 if final else None,
        "start_time": time if runs else None,
        "end_time": time if final else None,
        "revision": 1,
        "create_time": time,
        "update_time": time,
        **given,
    }
