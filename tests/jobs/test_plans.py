"""How the databases find jobs and events: by the index that is meant for it, without scanning or sorting."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import job_events, jobs
from morag_meta.ids import new_id
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.listing import Filter, parse_order
from morag_meta.jobs.rows import queue_of
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.db.rows import JOB
from tests.plans import Plan, Work, analyze

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
OWNERS, JOBS, STATES = 4, 1500, ("PENDING", "PROCESSING", "FAILED", "FINISHED", "FINISHED", "FINISHED")


@dataclass(frozen=True)
class Filled:
    """A database with many jobs, one of its owners, and one of that owner's jobs and documents."""

    database: Database
    owner_id: str
    document_id: str
    job_id: str


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Iterator[Filled]:
    """Fill a database and bring its statistics up to date."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    made = [_fill(database, f"{number}@example.org") for number in range(OWNERS)]
    for table in ("jobs", "job_events"):
        analyze(database, table)
    yield made[1]
    database.close()
    backend.drop(url)


def _fill(database: Database, email: str) -> Filled:
    with database.unit_of_work() as uow:
        owner_id = create_user(uow, name="Owner", email=email)["id"]
        documents = [
            uow.documents.add(owner_id, {"name": f"{number}.txt", "type": "txt"})["id"]
            for number in range(30)
        ]
        template = create_job(uow, owner_id, kind="X")
        rows: list[dict[str, Any]] = []
        for number in range(JOBS):
            state, time = STATES[number % len(STATES)], START + dt.timedelta(seconds=number)
            rows.append(
                {
                    **template,
                    **_standing(state, time),
                    "id": new_id(),
                    "queue": queue_of({**template, "state": state}),
                    "document_id": documents[number % len(documents)],
                    "create_time": time,
                    "update_time": START + dt.timedelta(seconds=number * 7919 % JOBS),
                }
            )
        uow.run_many(sa.insert(jobs), rows)
        uow.run_many(sa.insert(job_events), [_event(row, number) for row in rows for number in (1, 2, 3)])
        uow.commit()
    return Filled(database, owner_id, documents[3], rows[700]["id"])


def _standing(state: str, time: dt.datetime) -> dict[str, Any]:
    final, running = state in ("FAILED", "FINISHED"), state == "PROCESSING"
    later = time + dt.timedelta(days=3650)  # most jobs are not overdue
    return {
        "state": state,
        "failure": "REPORTED" if state == "FAILED" else None,
        "lease_token": JOB if running else None,
        "lease_expire_time": later if running else None,
        "due_time": None if final else later,
        "ready_time": time,
        "end_time": time if final else None,
    }


def _event(row: dict[str, Any], number: int) -> dict[str, Any]:
    same = ("owner_id", "state", "attempt", "percentage", "phase", "summary", "kind", "create_time")
    return {"job_id": row["id"], "number": number} | {name: row[name] for name in same}


def _page(filled: Filled, order_by: str = "", **chosen: Any) -> Work:
    after = {"create_time": START + dt.timedelta(seconds=900), "id": filled.job_id}
    after["update_time"] = after["create_time"]
    which = Filter(**{"owner_id": filled.owner_id} | chosen)
    return lambda uow: uow.jobs.page(which, parse_order(order_by), after, 50)


@pytest.mark.parametrize(
    ("order_by", "chosen", "index"),
    [
        ("", {}, "ix_jobs__owner_id_create_time_id"),
        ("create_time", {}, "ix_jobs__owner_id_create_time_id"),
        ("update_time desc", {}, "ix_jobs__owner_id_update_time_id"),
        ("", {"document_id": "the document"}, "ix_jobs__owner_id_document_id_create_time"),
        ("", {"states": ("PENDING",)}, "ix_jobs__owner_id_state_create_time"),
        ("", {"owner_id": "-"}, "ix_jobs__create_time_id"),
    ],
)
def test_lists_come_from_an_index(filled: Filled, order_by: str, chosen: dict[str, Any], index: str) -> None:
    """A page of jobs is read in order from the index of its filter and order."""
    if "document_id" in chosen:
        chosen = {"document_id": filled.document_id}
    plan = Plan(filled.database, _page(filled, order_by, **chosen))

    assert not plan.scans, plan.text
    assert not plan.sorts, plan.text
    assert index in plan.indexes, plan.text


def test_what_is_overdue_comes_from_an_index(filled: Filled) -> None:
    """The reaper's look reads the due times alone, in their order, whosever the jobs are."""
    plan = Plan(filled.database, lambda uow: uow.jobs.overdue(START, 100))

    assert not plan.scans, plan.text
    assert not plan.sorts, plan.text
    assert plan.indexes == {"ix_jobs__due_time"}, plan.text


def test_looking_up_jobs_and_events_scans_nothing(filled: Filled) -> None:
    """Getting a job, its open ingestion, its position and its events, and what the poller asks, use keys."""
    works: list[Work] = [
        lambda uow: uow.jobs.get(filled.owner_id, filled.job_id),
        lambda uow: uow.jobs.get("-", filled.job_id),
        lambda uow: uow.jobs.lock(filled.owner_id, filled.job_id),
        lambda uow: uow.jobs.find_open_ingestion(filled.owner_id, filled.document_id),
        lambda uow: uow.jobs.position(filled.owner_id, filled.job_id),
        lambda uow: uow.jobs.events_after(filled.owner_id, filled.job_id, 1, 100),
        lambda uow: uow.jobs.events_after("-", filled.job_id, 0, 100),
        lambda uow: uow.jobs.newest_events([filled.job_id, filled.document_id]),
    ]
    for work in works:
        plan = Plan(filled.database, work)
        assert not plan.scans, plan.text
