"""How the databases find the next jobs among many, and workers: from an index, without scan or sort."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import jobs
from morag_meta.ids import new_id
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.queue import Wanted
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
                {**template, "id": new_id(), "queue_place": template["queue_place"] + place, "state": state}
                | (ended if state == "FINISHED" else {})
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
@pytest.mark.parametrize("of_everyone", [True, False])
def test_the_next_jobs_come_in_order_from_the_queues_index(
    filled: Filled, of_everyone: bool, kinds: tuple[str, ...]
) -> None:
    """Candidates, of everybody or of one owner, are read from the front of an index: nothing is sorted."""
    wanted = Wanted("-" if of_everyone else filled.owner_id, ("PENDING",), kinds)
    plan = Plan(filled.database, lambda uow: uow.queue.candidates(wanted, 41))
    index = "ix_jobs__state_queue_place_create_time" if of_everyone else "ix_jobs__owner_id_state_queue_place"

    assert not plan.scans, plan.text
    assert not plan.sorts, plan.text
    assert index in plan.indexes, plan.text


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
