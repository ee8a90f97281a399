"""The order of all events: given after commit, so that whoever reads on from a position misses nothing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.engine import IDLE_SECONDS
from morag_meta.db.schema import job_events, jobs
from morag_meta.ids import new_id
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.listing import Filter
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user
from tests.plans import Plan, Work, analyze


class Log:
    """A database with one owner, and its log."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.unit_of_work() as uow:
            self.owner = str(create_user(uow, name="Owner", email="owner@log.test")["id"])
            uow.queue.turns.open(self.owner, 2)  # which first jobs at the same time would wait for
            uow.commit()

    def add_job(self, uow: UnitOfWork) -> str:
        """Create a job in a transaction of the caller's."""
        return str(create_job(uow, self.owner, kind="REINDEX")["id"])

    def number(self, limit: int = 200) -> int | None:
        """Make one pass of a sequencer."""
        with self.database.unit_of_work() as uow:
            count = uow.log.number(limit)
            uow.commit()
        return count

    def look(self) -> Any:
        """Look at the log's row."""
        with self.database.unit_of_work() as uow:
            return uow.log.look()

    def read(self, position: int = 0) -> list[tuple[int, str, int]]:
        """Read everything behind a position."""
        with self.database.unit_of_work() as uow:
            rows = uow.log.page(position, 100_000)
        return [(row["position"], row["job_id"], row["number"]) for row in rows]


@pytest.fixture
def log(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Give an empty log, whose row is not lost to a pause of the machine."""
    monkeypatch.setattr("morag_meta.jobs.log._IDLE_SECONDS", IDLE_SECONDS)
    migrate.upgrade(database_url)
    database = Database.open(database_url)
    yield Log(database)
    database.close()


def test_events_get_positions_after_commit_in_their_order(log: Log) -> None:
    """Positions run 1, 2, 3 … by time and, within a job, by number; what has one is never counted again."""
    with log.database.unit_of_work() as uow:
        ids = [log.add_job(uow) for _ in range(3)]
        row = uow.jobs.lock(log.owner, ids[0])
        for percentage in (10, 20):
            row = uow.jobs.change(row, percentage=percentage)
        uow.commit()

    assert log.read() == []
    assert (log.look()["position"], log.look()["waiting"]) == (0, 5)
    assert [log.number(2), log.number(2), log.number(2), log.number(2)] == [2, 2, 1, 0]
    told = log.read()
    assert [position for position, _, _ in told] == [1, 2, 3, 4, 5]
    assert [number for _, job_id, number in told if job_id == ids[0]] == [1, 2, 3]
    assert (log.look()["position"], log.look()["waiting"]) == (5, 0)
    assert log.read(3) == told[3:]


def test_events_of_one_moment_keep_their_order(log: Log) -> None:
    """Events of a job that bear the same time are numbered in the job's order, over batches as well."""
    with log.database.unit_of_work() as uow:
        job_id = log.add_job(uow)
        row: Any = uow.jobs.lock(log.owner, job_id)
        for percentage in range(1, 30):
            row = uow.jobs.change({**row, "clock": row["create_time"]}, percentage=percentage)
        uow.commit()
    while log.number(4):
        pass

    assert [number for _, _, number in log.read()] == list(range(1, 31))
    with log.database.unit_of_work() as uow:
        times = uow.connection.execute(sa.select(job_events.c.create_time)).scalars().all()
    assert len(set(times)) == 1


def test_one_numbers_and_the_others_pass(log: Log) -> None:
    """While somebody holds the log's row, others do not wait for it; SQLite has one writer anyway."""
    with log.database.unit_of_work() as uow:
        log.add_job(uow)
        uow.commit()
    if log.database.dialect == "sqlite":
        assert log.number() == 1
        return
    with log.database.unit_of_work() as holder:
        assert holder.log.number() == 1
        assert log.number() is None  # who waited for it in vain would be told of a collision
        assert log.read() == []
        holder.commit()
    assert len(log.read()) == 1


def test_a_transaction_that_is_held_open_is_not_missed(log: Log) -> None:
    """What began earlier and commits later comes later: a reader who went on meanwhile still gets it."""
    if log.database.dialect == "sqlite":  # which has one writer at a time
        return
    chance, seen = random.Random(11), []  # noqa: S311 - a test's order of events
    expected, position = set(), 0
    for _ in range(60):
        with ExitStack() as stack:
            held = [stack.enter_context(log.database.unit_of_work()) for _ in range(3)]
            made = [(uow, log.add_job(uow)) for uow in held]
            chance.shuffle(made)
            for uow, job_id in made:
                uow.commit()
                expected.add(job_id)
                if chance.random() < 0.7:
                    log.number(chance.randint(1, 3))
                read = log.read(position)
                position = read[-1][0] if read else position
                seen += [job_id for _, job_id, _ in read]
    while log.number():
        pass
    seen += [job_id for _, job_id, _ in log.read(position)]

    assert len(seen) == len(set(seen)) == 180
    assert set(seen) == expected


class Crowd:
    """Writers, sequencers and a reader of one log, each in a thread."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.read: list[tuple[int, str, int]] = []
        self.failures: list[BaseException] = []
        self.stop = threading.Event()

    def thread(self, run: Callable[[], None]) -> threading.Thread:
        """Run something, and keep what it fails with."""

        def guarded() -> None:
            try:
                run()
            except BaseException as error:  # noqa: BLE001 - told by the test
                self.failures.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def write(self) -> None:
        """Make jobs, and change each three times, in a transaction each."""
        for _ in range(15):
            with self.log.database.unit_of_work() as uow:
                job_id = self.log.add_job(uow)
                uow.commit()
            for percentage in (1, 2, 3):
                with self.log.database.unit_of_work() as uow:
                    uow.jobs.change(uow.jobs.lock(self.log.owner, job_id), percentage=percentage)
                    uow.commit()

    def sequence(self) -> None:
        """Number again and again."""
        while not self.stop.is_set():
            self.log.number(5)
            time.sleep(0.001)

    def follow(self) -> None:
        """Read on from the last position again and again."""
        while True:
            last = self.stop.is_set()
            self.read.extend(self.log.read(self.read[-1][0] if self.read else 0))
            if last:
                return


def test_writers_and_sequencers_at_once_lose_and_repeat_nothing(log: Log) -> None:
    """With writers, sequencers and a reader at once, each event is read once and in its job's order."""
    crowd = Crowd(log)
    writers = [crowd.thread(crowd.write) for _ in range(4)]
    others = [crowd.thread(crowd.sequence), crowd.thread(crowd.sequence), crowd.thread(crowd.follow)]
    for thread in writers:
        thread.join(60)
    limit = time.monotonic() + 60
    while log.look()["waiting"] and not crowd.failures and time.monotonic() < limit:
        time.sleep(0.01)
    crowd.stop.set()
    for thread in others:
        thread.join(60)

    assert not crowd.failures
    assert [position for position, _, _ in crowd.read] == list(range(1, 4 * 15 * 4 + 1))
    numbers: dict[str, list[int]] = {}
    for _, job_id, number in crowd.read:
        numbers.setdefault(job_id, []).append(number)
    assert set(map(tuple, numbers.values())) == {(1, 2, 3, 4)}


@pytest.fixture
def filled(log: Log) -> Log:
    """Give a log with many events, the last few without a position, and fresh statistics."""
    with log.database.unit_of_work() as uow:
        job: Any = uow.jobs.get(log.owner, log.add_job(uow))
        event: Any = uow.jobs.events_after(log.owner, job["id"], 0, 1)[0]
        rows = [{**job, "id": new_id(), "open_document_id": None} for _ in range(1500)]
        uow.run_many(sa.insert(jobs), rows)
        uow.run_many(
            sa.insert(job_events),
            [
                {**event, "job_id": row["id"], "position": place if place < 1490 else None}
                for place, row in enumerate(rows, 1)
            ],
        )
        uow.commit()
    for table in ("jobs", "job_events"):
        analyze(log.database, table)
    return log


def _window(chosen: Filter, uow: UnitOfWork) -> object:
    return uow.log.page_of(chosen, 1000, 1050, 200)


def test_the_log_is_read_by_its_index(filled: Log) -> None:
    """Looking, numbering and reading on walk along the index of positions; a snapshot is a list's page."""
    works: list[Work] = [
        lambda uow: uow.log.look(),
        lambda uow: uow.log.page(900, 100),
        lambda uow: uow.log.waiting(5),
    ]
    for work in works:
        plan = Plan(filled.database, work)
        assert "ix_job_events__position_create_time" in plan.indexes, plan.text
        assert not plan.sorts, plan.text
    for chosen in _filters(filled.owner):
        plan = Plan(filled.database, partial(_window, chosen))
        assert plan.indexes == {"ix_job_events__position_create_time"}, plan.text
    plan = Plan(filled.database, lambda uow: uow.jobs.snapshot(Filter(filled.owner), None, 100))
    assert not plan.scans, plan.text
    assert not plan.sorts, plan.text


def _filters(owner_id: str) -> list[Filter]:
    narrow = Filter(owner_id, kinds=("X",), states=("PENDING",), worker_ids=(new_id(),))
    return [Filter("-"), Filter(owner_id), narrow]
