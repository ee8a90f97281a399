"""The lanes: bounded queues, work that nobody waits for any more, and threads that stay few."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from morag_meta.db import lanes
from morag_meta.db.database import Database
from morag_meta.db.engine import DatabaseOptions
from morag_meta.errors import DeadlineExceeded, Unavailable
from morag_meta.uow import UnitOfWork
from tests.db.accounts import add, exists, new_email


@contextmanager
def _opened(url: str, **options: float) -> Iterator[Database]:
    """Open a database in which one unit of work runs at a time, so that a second one waits."""
    one = DatabaseOptions(url=url, pool_size=1, max_overflow=0)
    opened = Database(dataclasses.replace(one, **options))  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def narrow(migrated_url: str) -> Iterator[Database]:
    """Give a database with one thread and room for two that wait."""
    with _opened(migrated_url, queue=2) as opened:
        yield opened


class Blockade:
    """A unit of work that keeps the only writer busy until it is told to end."""

    def __init__(self, database: Database) -> None:
        self._begun, self._end = threading.Event(), threading.Event()
        self.task = asyncio.create_task(database.write(self._hold))

    def _hold(self, uow: UnitOfWork) -> str:
        self._begun.set()
        assert self._end.wait(20)
        return "held"

    async def begun(self) -> None:
        """Wait until it runs."""
        assert await asyncio.to_thread(self._begun.wait, 10)

    async def end(self) -> None:
        """Let it end, and wait for that."""
        self._end.set()
        assert await self.task == "held"


@pytest.fixture
async def blockade(narrow: Database) -> AsyncIterator[Blockade]:
    """Keep the only writer busy."""
    made = Blockade(narrow)
    await made.begun()
    yield made
    if not made.task.done():
        await made.end()


async def test_a_full_queue_is_told_at_once(narrow: Database, blockade: Blockade) -> None:
    """Who finds the queue full hears SERVER_BUSY and when to come again, at once; who waits is served."""
    waiting = [asyncio.create_task(narrow.write(lambda _: "served")) for _ in range(2)]
    await asyncio.sleep(0)
    began = time.monotonic()
    with pytest.raises(Unavailable) as refusal:
        await narrow.write(lambda _: pytest.fail("it ran"))
    assert time.monotonic() - began < 5  # the writer is busy for longer
    assert refusal.value.reason == "SERVER_BUSY"
    assert refusal.value.retry_after
    await blockade.end()
    assert await asyncio.gather(*waiting) == ["served"] * 2
    assert await narrow.write(lambda _: "again") == "again"


async def test_what_comes_while_the_database_is_closed_is_refused(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that is handed in just as another thread closes hears SERVER_BUSY, and is never left waiting."""
    with _opened(migrated_url) as database:
        assert await database.write(lambda _: "before") == "before"

        def meanwhile(*given: Any) -> lanes.Work:
            database.close()
            return work(*given)

        work = lanes.Work
        monkeypatch.setattr(lanes, "Work", meanwhile)
        with pytest.raises(Unavailable) as refusal:
            await asyncio.wait_for(database.write(lambda _: pytest.fail("it ran")), 20)
    assert refusal.value.reason == "SERVER_BUSY"


async def test_work_whose_deadline_passed_in_the_queue_never_runs(
    narrow: Database, blockade: Blockade
) -> None:
    """A deadline that passes in the queue answers DEADLINE_EXCEEDED, and the work is not begun."""
    late = asyncio.create_task(
        narrow.write(lambda _: pytest.fail("it ran"), deadline=time.monotonic() + 0.05)
    )
    await asyncio.sleep(0.1)
    await blockade.end()
    with pytest.raises(DeadlineExceeded) as refusal:
        await late
    assert refusal.value.reason == "DEADLINE_IN_QUEUE"


async def test_a_deadline_that_has_not_passed_is_no_hindrance(narrow: Database, blockade: Blockade) -> None:
    """Work that waited, but not beyond its deadline, runs."""
    waiting = asyncio.create_task(narrow.write(lambda _: "served", deadline=time.monotonic() + 10))
    await asyncio.sleep(0.1)
    await blockade.end()
    assert await waiting == "served"


async def test_work_that_waits_longer_than_the_pools_timeout_never_runs(migrated_url: str) -> None:
    """What waits for a connection longer than the pool's timeout answers SERVER_BUSY, and is not begun."""
    with _opened(migrated_url, pool_timeout=1.0) as database:
        blockade = Blockade(database)
        await blockade.begun()
        waiting = asyncio.create_task(database.write(lambda _: pytest.fail("it ran")))
        await asyncio.sleep(1.5)
        await blockade.end()
        with pytest.raises(Unavailable) as refusal:
            await waiting
    assert refusal.value.reason == "SERVER_BUSY"


async def test_work_cancelled_in_the_queue_never_runs(narrow: Database, blockade: Blockade) -> None:
    """A call that is cancelled while it waits is not begun, and its place is free."""
    email = new_email()
    waiting = asyncio.create_task(narrow.write(lambda uow: add(uow, email)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await blockade.end()
    assert await narrow.write(lambda _: "next") == "next"
    assert not exists(narrow, email)


async def test_work_cancelled_while_it_runs_is_committed_and_told(narrow: Database) -> None:
    """A call that is cancelled while it runs commits, and its effects follow all the same."""
    email, begun, go_on = new_email(), threading.Event(), threading.Event()
    followed: list[str] = []
    over = threading.Event()
    narrow.listen(followed.extend)

    def work(uow: UnitOfWork) -> None:
        add(uow, email)
        uow.announce("told")
        uow.after_commit(lambda: followed.append("effect"))
        uow.after_commit(over.set)
        begun.set()
        assert go_on.wait(10)

    task = asyncio.create_task(narrow.write(work))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not followed
    go_on.set()
    assert await asyncio.to_thread(over.wait, 10)
    assert followed == ["told", "effect"]
    assert exists(narrow, email)


async def test_threads_and_connections_stay_within_their_bound(migrated_url: str) -> None:
    """However much is asked at once, no more threads run than there are connections."""
    with _opened(migrated_url, pool_size=2, max_overflow=1, queue=500) as database:
        seen: set[int] = set()
        most, running, lock = 0, 0, threading.Lock()

        def work(uow: UnitOfWork) -> None:
            nonlocal most, running
            with lock:
                running += 1
                most = max(most, running)
                seen.add(threading.get_ident())
            uow.users.find_by_email("nobody@unit.test")
            time.sleep(0.002)
            with lock:
                running -= 1

        await asyncio.gather(*(database.read(work) for _ in range(200)))
        assert most <= 3
        assert len(seen) <= 3
        if database.dialect != "sqlite":
            assert most == 3  # all of them are used


async def test_idle_threads_are_used_before_new_ones_start(migrated_url: str) -> None:
    """One call after the other needs one thread."""
    with _opened(migrated_url, pool_size=4) as database:
        seen = set()
        for _ in range(30):
            seen.add(await database.read(lambda _: threading.get_ident()))
        assert len(seen) == 1


async def test_work_does_not_wait_behind_a_long_one(migrated_url: str) -> None:
    """While one unit of work takes long, another runs on a thread of its own, every time."""
    for _ in range(8):
        with _opened(migrated_url, pool_size=2) as database:
            assert await database.read(lambda _: "first") == "first"  # and now one thread is idle
            end = threading.Event()
            long = asyncio.create_task(database.read(lambda _, end=end: end.wait(10)))  # type: ignore[misc]
            try:
                async with asyncio.timeout(5):
                    assert await database.read(lambda _: "quick") == "quick"
            finally:
                end.set()
            assert await long


async def test_what_raises_in_the_thread_comes_out_as_it_is(narrow: Database) -> None:
    """An exception of the work, SystemExit among them, reaches who awaits it, and the thread lives on."""

    def work(uow: UnitOfWork) -> None:
        raise SystemExit(3)

    for _ in range(3):
        with pytest.raises(SystemExit):
            await narrow.read(work)
    assert await narrow.write(lambda _: "alive") == "alive"


def _until_closing(database: Database) -> None:
    end = time.monotonic() + 10
    while not database._writers._closed:  # noqa: SLF001 - nothing else shows that it has begun
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_closing_finishes_what_waits_and_refuses_the_rest(migrated_url: str) -> None:
    """What was accepted before the end is done, what comes after it is refused, and no thread is left."""
    email = new_email()
    with _opened(migrated_url) as database:
        blockade = Blockade(database)
        await blockade.begun()
        waiting = asyncio.create_task(database.write(lambda uow: add(uow, email)))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(database.close))
        await asyncio.to_thread(_until_closing, database)
        with pytest.raises(Unavailable):
            await database.write(lambda _: pytest.fail("it ran"))
        await blockade.end()
        assert (await waiting)["email"] == email
        await closing
    with _opened(migrated_url) as database:
        assert exists(database, email)


def test_a_closed_loop_does_not_hurt_the_thread(narrow: Database) -> None:
    """Work whose event loop is gone when it ends is committed, and the thread serves the next loop."""
    email, begun, go_on = new_email(), threading.Event(), threading.Event()

    def work(uow: UnitOfWork) -> None:
        add(uow, email)
        begun.set()
        assert go_on.wait(10)

    async def leave() -> None:
        task = asyncio.ensure_future(narrow.write(work))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()

    asyncio.run(leave())
    go_on.set()
    assert asyncio.run(narrow.write(lambda _: "next")) == "next"
    assert exists(narrow, email)
