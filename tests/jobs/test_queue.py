"""Who is next: the owners in turn within a priority, whatever is made, leased and given back in between."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.jobs import actions, leases
from morag_meta.jobs.actions import Plan
from morag_meta.jobs.queue import Wanted
from morag_meta.jobs.rules import NOBODY
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.jobs.later import let_pass

OWNERS = 4
ALL = Wanted("-")


class Queue:
    """A queue of a few owners, of which every test empties what it made."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.unit_of_work() as uow:
            self.owners = [
                str(create_user(uow, name="Owner", email=f"{number}@queue.test")["id"])
                for number in range(OWNERS)
            ]
            uow.commit()

    def clear(self) -> None:
        """Remove every job."""
        with self.database.unit_of_work() as uow:
            for owner_id in self.owners:
                uow.jobs.delete_all(owner_id)
            uow.commit()

    def create(self, owner: int, **fields: Any) -> str:
        """Make a job of an owner."""
        with self.database.unit_of_work() as uow:
            row = actions.create_job(uow, self.owners[owner], **{"kind": "X"} | fields)
            uow.commit()
        return str(row["id"])

    def lease_next(self) -> tuple[int, str] | None:
        """Lease the next job, and give its owner and its id."""
        with self.database.unit_of_work() as uow:
            found = uow.queue.candidates(ALL, 1)
            if not found:
                return None
            leases.lease(uow, uow.jobs.lock("-", found[0]["id"]), worker_id=None)
            uow.commit()
        return self.owners.index(found[0]["owner_id"]), found[0]["id"]

    def lease_all(self) -> list[tuple[int, str]]:
        """Lease one after the other until there is none."""
        leased = []
        while (lease := self.lease_next()) is not None:
            leased.append(lease)
        return leased

    def give_back(self, job_id: str) -> None:
        """Take a job back from its holder."""
        with self.database.unit_of_work() as uow:
            leases.release(uow, uow.jobs.lock("-", job_id), NOBODY)
            uow.commit()


@pytest.fixture(scope="module")
def made(backend: Backend) -> Iterator[Queue]:
    """Give a database with a few users."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    yield Queue(database)
    database.close()
    backend.drop(url)


@pytest.fixture
def queue(made: Queue) -> Queue:
    """Give an empty queue."""
    made.clear()
    return made


def test_owners_take_turns(queue: Queue) -> None:
    """Of owners with any number of jobs each has a turn in each round; of an owner the oldest is next."""
    made = {owner: [queue.create(owner) for _ in range(count)] for owner, count in enumerate((5, 1, 3, 2))}
    leased = queue.lease_all()

    assert [owner for owner, _ in leased] == [0, 1, 2, 3, 0, 2, 3, 0, 2, 0, 0]
    assert {owner: [job for whose, job in leased if whose == owner] for owner in made} == made


def test_one_owners_many_jobs_hold_up_no_others_one(queue: Queue) -> None:
    """A job of an owner who has nothing waiting is the second next, however many of another wait already."""
    for _ in range(40):
        queue.create(0)
    for _ in range(7):
        queue.lease_next()
    single = queue.create(1)
    for _ in range(20):
        queue.create(2)

    assert single in [job for _, job in (queue.lease_next(), queue.lease_next()) if job]  # type: ignore[misc]


def test_priority_comes_before_turns(queue: Queue) -> None:
    """Every URGENT job is leased before any HIGH one, and so down to LOW, whoever's they are."""
    for priority in (1, 2, 3, 4, 2, 1, 4, 3):
        for owner in (0, 1):
            queue.create(owner, priority=priority, kind=f"P{priority}")
    with queue.database.unit_of_work() as uow:
        kinds = [row["kind"] for row in uow.queue.candidates(Wanted("-"), 100)]

    assert kinds == ["P4"] * 4 + ["P3"] * 4 + ["P2"] * 4 + ["P1"] * 4


def test_what_is_not_wanted_is_passed_by(queue: Queue) -> None:
    """Owner, kind, document type, state and the time of a job that is not to begin yet let jobs pass."""
    with queue.database.unit_of_work() as uow:
        document = uow.documents.add(queue.owners[0], {"name": "a.pdf", "type": "pdf"})
        later = uow.queue.now() + dt.timedelta(hours=1)
        uow.commit()
    plain, other = queue.create(0), queue.create(1, kind="Y")
    of_document = queue.create(0, kind="Z", document_id=document["id"])
    remote, delayed = queue.create(2, remote=True), queue.create(3, plan=Plan(not_before=later))

    def found(uow: UnitOfWork, reach: str = "-", **chosen: Any) -> set[str]:
        return {row["id"] for row in uow.queue.candidates(Wanted(reach, **chosen), 100)}

    with queue.database.unit_of_work() as uow:
        assert found(uow) == {plain, other, of_document, remote}
        assert found(uow, queue.owners[0]) == {plain, of_document}
        assert found(uow, kinds=("X", "Y")) == {plain, other, remote}
        assert found(uow, document_types=("pdf", "txt")) == {of_document}
        assert found(uow, states=("WAITING_FOR_REMOTE_WORKER",)) == {remote}
        assert found(uow, kinds=("Y",), document_types=("pdf",)) == set()
        assert len(uow.queue.candidates(Wanted("-"), 2)) == 2
    let_pass(queue.database, delayed, hours=1)
    with queue.database.unit_of_work() as uow:
        assert delayed in found(uow)


def test_what_comes_back_is_among_the_next(queue: Queue) -> None:
    """A job that is given back comes before younger ones, and lets nobody's turns begin anew."""
    first = queue.create(0)
    queue.lease_next()
    for _ in range(6):
        queue.create(0)
        queue.create(1)
    for _ in range(6):
        queue.lease_next()
    queue.give_back(first)
    single = queue.create(2)
    for _ in range(20):
        queue.create(3)

    assert queue.lease_next() == (0, first)
    upcoming = [queue.lease_next() for _ in range(4)]
    assert (2, single) in upcoming


class Turns:
    """Counts how many turns others had since an owner began to wait, or had the last one."""

    def __init__(self, queue: Queue) -> None:
        self.waiting: Counter[int] = Counter()
        self._queue = queue
        self._passed: dict[int, Counter[int]] = {}
        self._running: list[tuple[int, str]] = []
        self._returned: set[str] = set()

    def create(self, owner: int) -> None:
        """Make a job."""
        self._queue.create(owner)
        self._wait(owner)

    def give_back(self) -> None:
        """Give the longest running job back."""
        if self._running:
            owner, job_id = self._running.pop(0)
            self._queue.give_back(job_id)
            self._returned.add(job_id)
            self._wait(owner)

    def lease(self) -> None:
        """Lease the next job; it is somebody's who was not served twice while another waited."""
        leased = self._queue.lease_next()
        assert (leased is None) == (not +self.waiting)
        if leased is None:
            return
        owner, job_id = leased
        self._running.append(leased)
        self.waiting[owner] -= 1
        del self._passed[owner]
        if self.waiting[owner]:
            self._passed[owner] = Counter()
        if job_id not in self._returned:
            for passed in self._passed.values():
                passed[owner] += 1
                assert max(passed.values()) <= 2

    def _wait(self, owner: int) -> None:
        self.waiting[owner] += 1
        self._passed.setdefault(owner, Counter())


_DEEDS = st.lists(st.one_of(st.integers(0, OWNERS - 1), st.sampled_from(["lease", "back"])), max_size=60)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_DEEDS)
def test_nobody_is_passed_by_again_and_again(queue: Queue, deeds: list[Any]) -> None:
    """While an owner waits no other has more than two turns, but for jobs that come back."""
    queue.clear()
    turns = Turns(queue)
    for deed in deeds:
        if deed == "lease":
            turns.lease()
        elif deed == "back":
            turns.give_back()
        else:
            turns.create(deed)
    for _ in range(sum(turns.waiting.values()) + 1):
        turns.lease()

    assert not +turns.waiting


def test_a_checkpoint_is_kept_for_the_next_attempt(queue: Queue) -> None:
    """What is saved is found again until something else, or nothing, is saved; another's job shows none."""
    job_id = queue.create(0)
    with queue.database.unit_of_work() as uow:
        row = leases.lease(uow, uow.jobs.lock("-", job_id), worker_id=None)
        for data in (b"\x00\xff" * 16_384, b"b", b""):
            uow.queue.save_checkpoint({**row, "clock": row["update_time"]}, data)
            assert uow.queue.checkpoint(queue.owners[0], job_id) == data
            assert uow.queue.checkpoint(queue.owners[1], job_id) == b""
        uow.commit()
