"""How the databases find the jobs of a filter among 20,000: for figures, purges, retention and workers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.statements import EVERYONE
from morag_meta.ids import new_id
from morag_meta.jobs.listing import Filter, parse_order
from morag_meta.jobs.removal import OLD_EVENTS
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.jobs.written import write_jobs
from tests.plans import Plan, Work, analyze

OWNERS, JOBS, WORKERS = 5, 4000, 40
_STATES = ("PENDING", *("FINISHED",) * 16, "FAILED", "CANCELLED", "PROCESSING")
_TABLES = ("jobs", "job_events")


@dataclass(frozen=True)
class Filled:
    """A database with many jobs, one of its owners, one of its workers, and when it was filled."""

    database: Database
    owner_id: str
    worker_id: str
    now: dt.datetime


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Iterator[Filled]:
    """Fill a database and bring its statistics up to date."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    workers, owners = [new_id() for _ in range(WORKERS)], []
    with database.unit_of_work() as uow:
        now = uow.queue.now()
    for place in range(OWNERS):
        with database.unit_of_work() as uow:
            owners.append(create_user(uow, name="Owner", email=f"{place}@example.org")["id"])
            given = []
            for number in range(JOBS):
                state, time = _STATES[number % 20], now - dt.timedelta(minutes=10 * number)
                end = None if state in ("PENDING", "PROCESSING") else time
                worker = workers[number % WORKERS]
                given.append(
                    {"state": state, "create_time": time, "update_time": time, "end_time": end}
                    | {"worker_id": worker, "run_ms": number}
                )
            write_jobs(uow, owners[-1], given, events=1, first=place * JOBS + 1)
            uow.commit()
    for table in _TABLES:
        analyze(database, table)
    yield Filled(database, owners[2], workers[7], now)
    database.close()
    backend.drop(url)


@pytest.mark.parametrize("whose", ["one owner's", "everybody's"])
def test_lists_of_a_worker_come_from_its_index(filled: Filled, whose: str) -> None:
    """A page of one worker's jobs is read in order, without sorting what else the worker did."""
    owner = filled.owner_id if whose == "one owner's" else EVERYONE
    chosen = Filter(owner, worker_ids=(filled.worker_id,))
    plan = Plan(filled.database, lambda uow: uow.jobs.page(chosen, parse_order(""), None, 20))

    assert not plan.scans, plan.text
    assert not plan.sorts, plan.text
    assert "ix_jobs__worker_id_create_time_id" in plan.indexes, plan.text


def test_what_has_ended_is_found_in_its_order(filled: Filled) -> None:
    """The longest ended jobs, of one owner or of all, come from an index over the times of ends."""
    before = filled.now - dt.timedelta(days=20)
    plan = Plan(filled.database, lambda uow: uow.job_removals.purge(Filter(filled.owner_id), before, 20))
    assert (plan.scans, plan.sorts) == (False, False), plan.text
    assert "ix_jobs__owner_id_end_time" in plan.indexes, plan.text
    plan = Plan(filled.database, lambda uow: uow.job_removals.purge(Filter(EVERYONE), before, 20))
    assert (plan.scans, plan.sorts) == (False, False), plan.text
    assert "ix_jobs__end_time" in plan.indexes, plan.text


def test_figures_of_an_owner_come_from_an_index(filled: Filled) -> None:
    """Counts, times and the oldest open job of one owner are read without looking at others' jobs."""
    chosen, since = Filter(filled.owner_id), filled.now - dt.timedelta(days=2)
    works: list[Work] = [
        *(lambda uow, key=key: uow.job_stats.counts(chosen, since, key) for key in ("state", "kind", "day")),
        lambda uow: uow.job_stats.times(chosen, since),
        lambda uow: uow.job_stats.oldest_open_age(chosen),
    ]
    for work in works:
        plan = Plan(filled.database, work)
        assert not plan.scans, plan.text
        assert any("owner_id" in index for index in plan.indexes), plan.text


def test_old_events_are_found_by_their_age(filled: Filled) -> None:
    """What is to be trimmed is found by when it was written, without going through all events."""
    before = filled.now - dt.timedelta(minutes=10 * JOBS - 200)
    plan = Plan(filled.database, lambda uow: uow.all(OLD_EVENTS, before=before, limit=20, passed_over=[""]))
    assert "ix_job_events__create_time" in plan.indexes, plan.text
