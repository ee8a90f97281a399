"""How the databases find the next jobs among many, and workers: from an index, without scan or sort."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import jobs
from morag_meta.ids import new_id
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.rows import queue_of
from morag_meta.jobs.wanted import Wanted
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.plans import Plan, Work, analyze

OWNERS, JOBS = 4, 5_000
STATES = ("PENDING", "PENDING", "FINISHED", "FINISHED")


@dataclass(frozen=True)
class Filled:
    """A database with 20,000 jobs, half of them waiting, and the ids of an owner and of a worker."""

    database: Database
    owner_id: str
    worker_id: str


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Iterator[Filled]:
    """Fill a database and bring its statistics up to date."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    with database.unit_of_work() as uow:
        for number in range(OWNERS):
            owner_id = create_user(uow, name="Owner", email=f"{number}@example.org")["id"]
            template = uow.jobs.get("-", create_job(uow, owner_id, kind="A")["id"])
            ended = {"end_time": template["create_time"], "due_time": None}
            rows = [
                {
                    **template,
                    "id": new_id(),
                    "ready_time": template["ready_time"] + dt.timedelta(milliseconds=place),
                    "state": state,
                }
                | (ended if state == "FINISHED" else {})
                | {"queue": queue_of({**template, "state": state})}
                for place, state in enumerate(STATES * (JOBS // len(STATES)))
            ]
            uow.run_many(sa.insert(jobs), rows)
            worker_id = uow.workers.add(
                owner_id, name="w", kinds=[], document_types=[], execution=None, serves_everyone=False
            )["id"]
        uow.commit()
    for table in ("jobs", "workers"):
        analyze(database, table)
    yield Filled(database, owner_id, worker_id)
    database.close()
    backend.drop(url)


@pytest.mark.parametrize("kinds", [(), ("A", "B")])
def test_an_owners_next_jobs_come_in_order_from_an_index(filled: Filled, kinds: tuple[str, ...]) -> None:
    """Candidates of one owner are read from the front of an index: nothing is sorted."""
    wanted = Wanted(filled.owner_id, ("PENDING",), kinds)
    plan = Plan(filled.database, lambda uow: uow.queue.candidates(wanted, 41))

    assert not plan.scans, plan.text
    assert not plan.sorts, plan.text
    assert "ix_jobs__owner_id_state_queue" in plan.indexes, plan.text


@pytest.mark.parametrize("kinds", [(), ("A", "B")])
def test_whose_turn_it_is_takes_a_step_for_each_queue(filled: Filled, kinds: tuple[str, ...]) -> None:
    """The queues are found, and the first job of each, by an index: no job is read that is not a first."""
    wanted = Wanted("-", kinds=kinds)
    plan = Plan(filled.database, lambda uow: uow.queue.candidates(wanted, 41))

    assert not plan.scanned & {"jobs", "waiting", "others"}, plan.text
    assert "ix_jobs__queue_ready_time_id" in plan.indexes, plan.text
    if filled.database.dialect == "mariadb":
        assert "Using index for group-by" in plan.text, plan.text


@pytest.mark.parametrize("kinds", [(), ("A", "B")])
def test_the_jobs_of_a_queue_come_in_order_from_its_index(filled: Filled, kinds: tuple[str, ...]) -> None:
    """What comes behind the first job of a queue is read from the index: nothing is sorted."""
    wanted = Wanted("-", kinds=kinds)
    plan = Plan(filled.database, lambda uow: uow.queue.candidates(wanted, 41), number=1)

    assert not plan.scans, plan.text
    assert not plan.sorts, plan.text
    assert plan.indexes == {"ix_jobs__queue_ready_time_id"}, plan.text


def test_looking_up_workers_and_their_jobs_scans_nothing(filled: Filled) -> None:
    """Taking a candidate, waking by hints, counting leases and finding a worker use keys."""
    works: list[Work] = [
        lambda uow: uow.queue.ready([filled.worker_id, filled.owner_id]),
        lambda uow: uow.jobs.lock_if_free(filled.owner_id, filled.worker_id),
        lambda uow: uow.workers.leases([filled.worker_id]),
    ]
    for work in works:
        plan = Plan(filled.database, work)
        assert not plan.scans, plan.text
