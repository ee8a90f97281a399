"""Reapers at work: several at once do each thing once, one bad job stops nobody, and clocks do not matter."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import job_events, jobs
from morag_meta.jobs import actions, leases
from morag_meta.jobs.limits import Backoff
from morag_meta.jobs.reaper import handle as handle_job
from morag_meta.server import reaper
from morag_meta.server.reaper import Reaper
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend, chosen_kinds
from tests.jobs.later import row_of


class Reaped:
    """A database with one user, and running jobs whose workers are gone."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database.open(url)
        with self.database.unit_of_work() as uow:
            self.owner_id = create_user(uow, name="Owner", email="owner@reaping.test")["id"]
            uow.commit()

    def lost(self, count: int) -> list[str]:
        """Make jobs that are leased, each second one an ingestion, and let their leases expire."""
        with self.database.unit_of_work() as uow:
            ids = []
            for number in range(count):
                fields: dict[str, Any] = {"kind": "X"}
                if number % 2:
                    named = {"name": f"{uow.queue.now()} {number}", "type": "pdf"}
                    fields = {"kind": "INGESTION"}
                    fields["document_id"] = uow.documents.add(self.owner_id, named)["id"]
                row = actions.create_job(uow, self.owner_id, **fields)
                leases.lease(uow, uow.jobs.lock("-", row["id"]), worker_id=None)
                ids.append(str(row["id"]))
            uow.commit()
        self.expire(ids)
        return ids

    def expire(self, ids: list[str]) -> None:
        """Let the leases of jobs be over."""
        with self.database.unit_of_work() as uow:
            past = uow.queue.now() - dt.timedelta(seconds=1)
            over = {"lease_expire_time": past, "due_time": past}
            uow.connection.execute(sa.update(jobs).where(jobs.c.id.in_(ids)).values(**over))
            uow.commit()

    def told(self, ids: list[str]) -> dict[str, list[tuple[int, str]]]:
        """Give number and state of each event of each job, in order."""
        wanted = sa.select(job_events.c.job_id, job_events.c.number, job_events.c.state)
        told: dict[str, list[tuple[int, str]]] = {job_id: [] for job_id in ids}
        with self.database.engine.connect() as connection:
            for row in connection.execute(wanted.order_by(job_events.c.number)):
                if row.job_id in told:
                    told[row.job_id].append((row.number, row.state))
        return told


@pytest.fixture(scope="module")
def reaped(backend: Backend) -> Iterator[Reaped]:
    """Give a database that no server serves."""
    url = backend.new_url()
    migrate.upgrade(url)
    opened = Reaped(url)
    yield opened
    opened.database.close()
    backend.drop(url)


_ONCE = [(1, "PENDING"), (2, "PROCESSING"), (3, "PENDING")]


def test_several_reapers_do_each_thing_once(reaped: Reaped) -> None:
    """Four reapers that look at once put every job back once, in one event, and leave none over."""
    ids = reaped.lost(60)
    databases = [Database.open(reaped.url) for _ in range(4)]

    async def reap_all() -> None:
        stop = asyncio.Event()
        reapers = [Reaper(database, Backoff(), 1.0) for database in databases]
        for _ in range(3):
            await asyncio.gather(*(each.reap(stop) for each in reapers))

    asyncio.run(reap_all())
    for database in databases:
        database.close()

    assert reaped.told(ids) == dict.fromkeys(ids, _ONCE)
    pauses = {
        (row["not_before"] - row["update_time"]).total_seconds()
        for row in (row_of(reaped.database, job_id) for job_id in ids)
    }
    assert 27 <= min(pauses) <= max(pauses) <= 30
    assert len(pauses) > 30  # each is drawn by itself


def test_many_overdue_jobs_are_handled_without_a_pause(reaped: Reaped) -> None:
    """What is more than one look handles is handled at once after it, and the reaper ends when it is told."""
    ids = reaped.lost(230)

    async def run() -> int:
        stop, looks = asyncio.Event(), 0
        once = Reaper(reaped.database, Backoff(), 1.0)
        while await once.reap(stop):
            looks += 1
        forever = asyncio.create_task(Reaper(reaped.database, Backoff(), 60.0).run(stop))
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.wait_for(forever, 10)
        return looks

    assert asyncio.run(run()) == 2
    assert reaped.told(ids) == dict.fromkeys(ids, _ONCE)


def test_a_job_that_cannot_be_handled_stops_no_other(reaped: Reaped, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad jobs at the head of what is overdue are left for a while, however many they are."""
    monkeypatch.setattr(reaper, "_BATCH", 5)
    bad, good = reaped.lost(12), reaped.lost(12)
    # A row that no change can be made of: the database refuses the event that has the number already.
    with reaped.database.unit_of_work() as uow:
        for job_id in bad:
            template = uow.one(
                sa.select(job_events).where(job_events.c.job_id == job_id, job_events.c.number == 2)
            )
            assert template is not None
            uow.run(sa.insert(job_events), **{**template, "number": 3})
        earlier = uow.queue.now() - dt.timedelta(hours=1)
        uow.connection.execute(sa.update(jobs).where(jobs.c.id.in_(bad)).values(due_time=earlier))
        uow.commit()

    async def run() -> None:
        stop = asyncio.Event()
        task = asyncio.create_task(Reaper(reaped.database, Backoff(), 0.05).run(stop))
        for _ in range(400):
            await asyncio.sleep(0.05)
            if all(row_of(reaped.database, job_id)["state"] == "PENDING" for job_id in good):
                break
        stop.set()
        await asyncio.wait_for(task, 10)

    asyncio.run(run())
    assert reaped.told(good) == dict.fromkeys(good, _ONCE)
    assert {row_of(reaped.database, job_id)["state"] for job_id in bad} == {"PROCESSING"}
    with reaped.database.unit_of_work() as uow:  # nothing overdue is left for the other tests
        uow.jobs.delete_all(reaped.owner_id)
        uow.commit()


_BESIDE = pytest.mark.parametrize(  # SQLite has one writer at a time, and no locks of rows
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)


@_BESIDE
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "at one time"])
def test_locked_jobs_hold_up_none_behind_them(
    reaped: Reaped, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """However many that are due before it are held, a free job is handled, and they are when that is over."""
    monkeypatch.setattr(reaper, "_BATCH", 5)
    held, free = reaped.lost(23), reaped.lost(2)
    with reaped.database.unit_of_work() as uow:
        due = uow.queue.now() - dt.timedelta(hours=1)
        for number, job_id in enumerate(held):
            earlier = due + dt.timedelta(seconds=0 if together else number)
            uow.connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(due_time=earlier))
        uow.commit()
    once = Reaper(reaped.database, Backoff(), 1.0)

    async def reap() -> int:
        looks = 1
        while await once.reap(asyncio.Event()):
            looks += 1
        return looks

    with reaped.database.unit_of_work() as uow:
        for job_id in held:
            uow.jobs.lock("-", job_id)
        assert asyncio.run(reap()) == 6
        assert reaped.told(free) == dict.fromkeys(free, _ONCE)
        assert {row_of(reaped.database, job_id)["state"] for job_id in held} == {"PROCESSING"}
    asyncio.run(reap())
    assert reaped.told(held) == dict.fromkeys(held, _ONCE)


def test_a_round_ends_though_more_comes_than_is_handled(
    reaped: Reaped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is passed over is looked at again soon, while each look finds as much as it can take in."""
    monkeypatch.setattr(reaper, "_BATCH", 2)
    passed, *rest = reaped.lost(6)
    with reaped.database.unit_of_work() as uow:
        earlier = uow.queue.now() - dt.timedelta(hours=1)
        uow.connection.execute(sa.update(jobs).where(jobs.c.id == passed).values(due_time=earlier))
        uow.commit()
    busy = {passed}

    def handle(uow: UnitOfWork, job_id: str, *given: Any) -> str | None:
        return None if job_id in busy else handle_job(uow, job_id, *given)

    monkeypatch.setattr(reaper, "handle", handle)
    once = Reaper(reaped.database, Backoff(), 1.0)

    async def reap_while_more_comes() -> None:
        for _ in range(6):
            if row_of(reaped.database, passed)["state"] == "PENDING":
                return
            assert await once.reap(asyncio.Event())
            busy.clear()
            rest.extend(await asyncio.to_thread(reaped.lost, 4))
            with reaped.database.unit_of_work() as uow:  # due when they are found, as with time they are
                now = {"due_time": uow.queue.now()}
                uow.connection.execute(sa.update(jobs).where(jobs.c.id.in_(rest[-4:])).values(**now))
                uow.commit()
        raise AssertionError("never looked at again")

    asyncio.run(reap_while_more_comes())
    with reaped.database.unit_of_work() as uow:  # nothing overdue is left for the other tests
        uow.jobs.delete_all(reaped.owner_id)
        uow.commit()


@_BESIDE
def test_a_job_that_somebody_has_locked_is_left_to_them(reaped: Reaped) -> None:
    """A reaper waits for no lock of a job or its document, but passes by, and comes again."""
    ids = reaped.lost(4)
    rows = [row_of(reaped.database, job_id) for job_id in ids]

    async def reap() -> None:
        await Reaper(reaped.database, Backoff(), 1.0).reap(asyncio.Event())

    with reaped.database.unit_of_work() as uow:
        uow.jobs.lock("-", ids[0])
        uow.documents.lock("-", rows[1]["document_id"])
        asyncio.run(reap())
        states = [row_of(reaped.database, job_id)["state"] for job_id in ids]
    assert states == ["PROCESSING", "PROCESSING", "PENDING", "PENDING"]
    asyncio.run(reap())
    assert reaped.told(ids) == dict.fromkeys(ids, _ONCE)


def test_a_reaper_outlives_a_database_that_is_not_ready(backend: Backend) -> None:
    """While nothing can be read it looks again and again, and goes on as soon as it can."""
    url = backend.new_url()
    database = Database.open(url)

    async def run() -> tuple[Reaped, list[str]]:
        stop = asyncio.Event()
        task = asyncio.create_task(Reaper(database, Backoff(), 0.05).run(stop))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(migrate.upgrade, url)
        late = await asyncio.to_thread(Reaped, url)
        ids = await asyncio.to_thread(late.lost, 2)
        for _ in range(400):
            await asyncio.sleep(0.05)
            if late.told(ids) == dict.fromkeys(ids, _ONCE):
                break
        stop.set()
        await asyncio.wait_for(task, 10)
        return late, ids

    late, ids = asyncio.run(run())
    assert late.told(ids) == dict.fromkeys(ids, _ONCE)
    late.database.close()
    database.close()
    backend.drop(url)
