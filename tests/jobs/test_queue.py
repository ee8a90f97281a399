"""Who is next: the owners in turn within a priority, whatever is made, leased and given back in between."""

from __future__ import annotations

import datetime as dt
from typing import Any

from morag_meta.jobs import leases
from morag_meta.jobs.actions import Plan
from morag_meta.jobs.wanted import Wanted
from morag_meta.uow import UnitOfWork
from tests.jobs.later import let_pass
from tests.jobs.queued import Queue


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
