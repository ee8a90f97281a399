"""Which worker gets which job: each job to one, in the order of the queue, and to whom it is fit for."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.db.database import Database
from morag_meta.db.schema import jobs
from morag_meta.ids import new_id
from morag_meta.jobs import leases
from morag_meta.jobs.wanted import Wanted
from morag_meta.workers.actions import lease_jobs
from morag_meta.workers.convert import lease_to_proto
from morag_meta.workers.rules import appetite
from moragmeta.v1 import jobs_pb2
from tests.jobs.conftest import Work
from tests.service import Service
from tests.workers.fleet import Fleet, ids, key_with

WORKERS = 30
_STEP = dt.timedelta(milliseconds=1)
LOCAL, REMOTE = jobs_pb2.JOB_EXECUTION_LOCAL, jobs_pb2.JOB_EXECUTION_REMOTE


@pytest.fixture
def everyones(service: Service) -> Fleet:
    """Give workers that serve everybody; tests keep apart by kinds of their own."""
    return Fleet(key_with(service, service.admin, "jobs:work:all"))


def _at_once(number: int, run: Callable[[int], Any]) -> list[Any]:
    """Run something in so many threads that all begin together, and give what each of them got."""
    together = threading.Barrier(number)

    def begin(position: int) -> Any:
        together.wait(30)
        return run(position)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))


@pytest.mark.parametrize("kind", ["INGESTION", "REINDEX"])
def test_as_many_workers_as_jobs_find_one_each(work: Work, fleet: Fleet, kind: str) -> None:
    """Thirty workers that ask at the same moment for one of thirty jobs each get one, without waiting."""
    made = {work.add_job(kind=kind).id for _ in range(WORKERS)}
    workers = [fleet.register().id for _ in range(WORKERS)]
    got = _at_once(WORKERS, lambda position: ids(fleet.lease(workers[position])))

    assert [len(leased) for leased in got] == [1] * WORKERS
    assert {job_id for leased in got for job_id in leased} == made


def test_each_job_goes_to_exactly_one_worker(work: Work, fleet: Fleet) -> None:
    """Thirty workers empty a queue together: no job twice, none left over, each lease one event."""
    made = {work.add_job(kind="REINDEX").id for _ in range(120)}

    def drain(_: int) -> list[str]:
        worker, got = fleet.register().id, []
        while leases := fleet.lease(worker, 3):
            got += ids(leases)
        return got

    got = [job_id for leased in _at_once(WORKERS, drain) for job_id in leased]
    assert sorted(got) == sorted(made)
    for job_id in sorted(made)[:5]:
        events = work.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(job_id=job_id)).events
        assert [event.attempt for event in events] == [0, 1]


def test_a_job_that_is_held_for_a_moment_is_not_taken_for_none(
    service: Service, work: Work, fleet: Fleet
) -> None:
    """While somebody changes the only job or its document a worker tries again instead of going empty."""
    job = work.add_job()
    worker = fleet.register()
    for lock in (
        lambda uow: uow.jobs.lock("-", job.id),
        lambda uow: uow.documents.lock("-", job.document_id),
    ):
        held, done = threading.Event(), threading.Event()

        def hold(lock: Callable[[Any], Any] = lock, held: Any = held, done: Any = done) -> None:
            with service.database.unit_of_work() as uow:
                lock(uow)
                held.set()
                done.wait(0.4)
                uow.commit()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(10)
        (lease,) = fleet.lease(worker.id)
        holder.join()
        fleet.release(lease)


def test_a_job_whose_document_is_held_is_passed_by(service: Service, work: Work, fleet: Fleet) -> None:
    """What somebody else has locked holds up neither the jobs behind it nor the call."""
    first, second = work.add_job(), work.add_job()
    worker = fleet.register()
    with service.database.unit_of_work() as uow:
        if service.kind == "sqlite":
            uow.commit()  # which has one writer at a time, so that nobody can come in between
        else:
            uow.documents.lock("-", first.document_id)
        expected = [first.id, second.id] if service.kind == "sqlite" else [second.id]
        assert ids(fleet.lease(worker.id, 2)) == expected


@pytest.mark.parametrize("owners", [1, 12])
def test_behind_many_that_are_held_the_next_is_found(service: Service, everyones: Fleet, owners: int) -> None:
    """However many others hold, of one owner or the first of each of many: what is free is leased."""
    kind, held = f"K{new_id()}", []
    for _ in range(owners):
        work = Work(service.new_user())
        held += [work.add_job(kind=kind).id for _ in range(100 // owners)]
        free = work.add_job(kind=kind).id
    worker = everyones.register(kinds=[kind])
    with service.database.unit_of_work() as uow:
        if service.kind != "sqlite":  # which has one writer at a time
            for job_id in held:
                uow.jobs.lock("-", job_id)
            got = ids(everyones.lease(worker.id, owners))
            assert set(got).isdisjoint(held)
            assert owners > 1 or got == [free]
            assert got
    rest: list[str] = []
    while more := ids(everyones.lease(worker.id, 100)):
        rest += more
    assert set(rest) >= set(held)


def test_a_lease_that_is_not_committed_holds_up_no_other_owner(service: Service, everyones: Fleet) -> None:
    """While somebody stands still in an owner's first lease, others lease from all owners at once."""
    kind = f"K{new_id()}"
    works = [Work(service.new_user()) for _ in range(4)]
    made = [[work.add_job(kind=kind).id for _ in range(3)] for work in works]
    worker = everyones.register(kinds=[kind])
    with service.database.unit_of_work() as uow:
        if service.kind != "sqlite":
            candidate = next(row for row in uow.queue.candidates(_wanted(kind), 1))
            leases.lease(uow, uow.jobs.lock("-", candidate["id"]), worker_id=None)
            uow.queue.turns.note([candidate])
        got = ids(everyones.lease(worker.id, 12)) if service.kind != "sqlite" else []
        assert len(got) == (0 if service.kind == "sqlite" else 11)
    got += ids(everyones.lease(worker.id, 12))
    assert sorted(got) == sorted(job_id for jobs_of in made for job_id in jobs_of)


def _wanted(kind: str) -> Wanted:
    return Wanted("-", kinds=(kind,))


def test_who_finds_every_candidate_taken_tries_again(service: Service, work: Work, fleet: Fleet) -> None:
    """When others lease all candidates between their choice and their locks, the call is not simply empty."""
    for _ in range(3):
        work.add_job(kind="A")
    worker, other = fleet.register(), fleet.register()
    slow = Database.open(service.url)
    taken: list[str] = []

    def take(_: Any, __: Any, statement: str, *___: Any) -> None:
        chosen = "ready_time" in statement and not taken
        if chosen and service.kind != "sqlite":  # where nobody else writes meanwhile
            taken.extend(ids(fleet.lease(other.id, 3)))

    with slow.unit_of_work() as uow:
        row = uow.workers.get(work.user.id, worker.id)
        chosen = appetite(row, [], [], owner_id=work.user.id, may_serve_everyone=False)
        assert chosen is not None
        sa.event.listen(slow.engine, "after_cursor_execute", take)
        haul = lease_jobs(uow, row, chosen, most=1, lease_ms=1000, show=lease_to_proto)
    assert bool(haul.leases) != bool(haul.passed_by)
    assert haul.passed_by == set(taken)
    slow.close()


def test_what_is_overdue_is_left_to_the_reaper(service: Service, work: Work, fleet: Fleet) -> None:
    """A job whose time is over is not leased in the moment before it is failed, and holds nobody up."""
    for execution in (LOCAL, REMOTE):
        over, good = [work.add_job(kind="A", execution=execution) for _ in range(2)]
        worker = fleet.register()
        with service.database.unit_of_work() as uow:
            past = uow.queue.now() - dt.timedelta(seconds=1)
            late = sa.update(jobs).where(jobs.c.id == over.id).values(close_time=past, due_time=past)
            uow.connection.execute(late)
            uow.commit()
        assert ids(fleet.lease(worker.id, 5)) == [good.id]
        assert work.job(over.id).state in (over.state, jobs_pb2.JOB_STATE_FAILED)


def test_behind_many_that_are_overdue_the_next_is_found(service: Service, work: Work, fleet: Fleet) -> None:
    """Remote jobs whose time is over, and to which the reaper has not come yet, hide no other."""
    over = [work.add_job(kind="A", execution=REMOTE).id for _ in range(100)]
    good = work.add_job(kind="A", execution=REMOTE)
    worker = fleet.register()
    with service.database.unit_of_work() as uow:
        row = uow.workers.get(work.user.id, worker.id)
        chosen = appetite(row, [], [], owner_id=work.user.id, may_serve_everyone=False)
        assert chosen is not None
        past = uow.queue.now() - dt.timedelta(seconds=1)
        late = sa.update(jobs).where(jobs.c.id.in_(over)).values(close_time=past, due_time=past)
        uow.connection.execute(late)  # which the reaper does not see yet
        without: frozenset[str] = frozenset()
        haul = lease_jobs(uow, row, chosen, most=1, lease_ms=1000, show=lease_to_proto)
        while haul.passed_by:
            without |= haul.passed_by
            haul = lease_jobs(uow, row, chosen, most=1, lease_ms=1000, show=lease_to_proto, without=without)
        assert ids(haul.leases) == [good.id]
        assert set() < without <= set(over)


def test_the_urgent_come_first_then_the_older(work: Work, fleet: Fleet) -> None:
    """An owner's jobs come in the order of priority, and equals in the order in which they were made."""
    made = {
        (priority, number): work.add_job(kind="REINDEX", priority=priority).id
        for number in range(2)
        for priority in (1, 4, 2, 3)
    }
    expected = [made[priority, number] for priority in (4, 3, 2, 1) for number in range(2)]
    worker = fleet.register()
    one_by_one = [ids(fleet.lease(worker.id))[0] for _ in range(3)]
    assert one_by_one + ids(fleet.lease(worker.id, 10)) == expected


def test_owners_take_turns(service: Service, everyones: Fleet) -> None:
    """Two owners' jobs of one priority come alternately, whoever was first with many."""
    kind = f"K{new_id()}"
    many, few = Work(service.new_user()), Work(service.new_user())
    first = [many.add_job(kind=kind).id for _ in range(6)]
    second = [few.add_job(kind=kind).id for _ in range(3)]
    got = ids(everyones.lease(everyones.register(kinds=[kind]).id, 9))

    assert [job_id for job_id in got if job_id in first] == first
    assert [job_id for job_id in got if job_id in second] == second
    assert all(got.index(job_id) <= 2 * place + 1 for place, job_id in enumerate(second))


def test_two_thousand_jobs_of_one_owner_do_not_hold_up_another(service: Service, everyones: Fleet) -> None:
    """The one job of an owner is leased within the next two, though another's 2,000 were there before."""
    kind = f"K{new_id()}"
    many, few = Work(service.new_user()), Work(service.new_user())
    template = many.add_job(kind=kind)
    with service.database.unit_of_work() as uow:
        row = uow.jobs.get("-", template.id)
        copies = [
            {**row, "id": new_id(), "ready_time": row["ready_time"] + n * _STEP} for n in range(1, 2000)
        ]
        for start in range(0, len(copies), 250):
            uow.run_many(sa.insert(jobs), copies[start : start + 250])
        uow.commit()
    worker = everyones.register(kinds=[kind])
    before = ids(everyones.lease(worker.id, 3))
    mine = few.add_job(kind=kind)
    assert mine.id not in before
    assert mine.id in ids(everyones.lease(worker.id, 2))
    with service.database.unit_of_work() as uow:  # nobody's other test is to find them
        uow.jobs.delete_all(many.user.id)
        uow.commit()


@pytest.fixture
def varied(work: Work) -> dict[str, str]:
    """Make one job of each of several sorts, and give their ids by a letter."""
    document = work.add_document()
    return {
        "a": work.add_job(kind="A").id,
        "b": work.add_job(kind="B").id,
        "t": work.add_job(document, kind="A").id,
        "r": work.add_job(kind="A", execution=REMOTE).id,
    }


@pytest.mark.parametrize(
    ("worker", "asked", "expected"),
    [
        ({}, {}, "abtr"),
        ({"kinds": ["A"]}, {}, "atr"),
        ({}, {"kinds": ["B", "C"]}, "b"),
        ({"kinds": ["A", "B"]}, {"kinds": ["B", "C"]}, "b"),
        ({"kinds": ["A"]}, {"kinds": ["B"]}, ""),
        ({"kinds": ["a"]}, {}, ""),
        ({"document_types": ["txt"]}, {}, "t"),
        ({}, {"document_types": ["txt", "pdf"]}, "t"),
        ({"document_types": ["pdf"]}, {"document_types": ["txt"]}, ""),
        ({"execution": LOCAL}, {}, "abt"),
        ({"execution": REMOTE}, {}, "r"),
        ({"execution": REMOTE, "kinds": ["B"]}, {}, ""),
    ],
)
def test_a_worker_gets_what_both_it_and_its_call_take(
    varied: dict[str, str], fleet: Fleet, worker: dict[str, Any], asked: dict[str, Any], expected: str
) -> None:
    """Kinds and types are those of the worker that the call names too; an empty overlap is nothing."""
    got = ids(fleet.lease(fleet.register(**worker).id, 10, **asked))
    assert sorted(got) == sorted(varied[letter] for letter in expected)


def test_a_job_is_left_alone_until_its_time(work: Work, fleet: Fleet) -> None:
    """Before its time a job is leased to nobody, though jobs behind it are; then who waits gets it."""
    soon, worker = Timestamp(), fleet.register()
    now = work.add_job(kind="A")
    soon.FromNanoseconds(time.time_ns() + 4_000_000_000)
    later = work.add_job(kind="A", not_before=soon, priority=4)
    assert ids(fleet.lease(worker.id, 5)) == [now.id]
    (lease,) = fleet.lease(worker.id, 5, wait=20)
    assert lease.job.id == later.id
    assert lease.job.start_time.ToNanoseconds() >= soon.ToNanoseconds() - 1000
    assert not lease.job.HasField("not_before")
