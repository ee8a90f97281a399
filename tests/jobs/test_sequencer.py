"""The sequencer in a server, and among several: what one leaves undone another does, and soon."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.engine import IDLE_SECONDS
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.sequencer import Sequencer
from morag_meta.users.actions import create_user
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import jobs_pb2_grpc
from tests.jobs.many import Many, expect_whole
from tests.processes import ServerProcess, prepare


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give a migrated database."""
    migrate.upgrade(database_url)
    opened = Database.open(database_url)
    yield opened
    opened.close()


def _owner(database: Database) -> str:
    with database.unit_of_work() as uow:
        owner = str(create_user(uow, name="Owner", email="owner@sequencer.test")["id"])
        uow.commit()
    return owner


def _write(database: Database, owner: str, count: int) -> None:
    with database.unit_of_work() as uow:
        for _ in range(count):
            create_job(uow, owner, kind="REINDEX")
        uow.commit()


async def _numbered(database: Database, count: int) -> float:
    """Wait until so many events have a position; give how long that took in seconds."""
    started = time.monotonic()
    while (await database.read(lambda uow: uow.log.look()))["position"] < count:
        assert time.monotonic() - started < 10.0
        await asyncio.sleep(0.01)
    return time.monotonic() - started


def test_a_commit_of_this_process_is_numbered_by_itself(database: Database) -> None:
    """Without anybody polling, what this process commits gets its positions at once, in several batches."""
    owner = _owner(database)

    async def run() -> None:
        sequencer = Sequencer(database)
        sequencer.start()
        running = asyncio.create_task(sequencer.run())
        await asyncio.to_thread(_write, database, owner, 450)
        await _numbered(database, 450)
        running.cancel()

    asyncio.run(run())


def test_settle_returns_when_what_was_committed_has_its_place(database: Database) -> None:
    """What another process committed before is numbered when `settle` returns, and nothing is no matter."""
    owner = _owner(database)
    _write(database, owner, 250)

    async def run() -> tuple[int, int]:
        sequencer = Sequencer(database)
        running = asyncio.create_task(sequencer.run())
        await sequencer.settle()
        found = await database.read(lambda uow: uow.log.look())
        await asyncio.gather(*(sequencer.settle() for _ in range(5)))
        running.cancel()
        return found["position"], found["waiting"]

    assert asyncio.run(run()) == (250, 0)


def test_who_finds_the_log_locked_comes_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another transaction holds the log's row a pass waits for it, and ends what that one left."""
    if database.dialect == "sqlite":  # whose one writer is waited for by everybody
        return
    monkeypatch.setattr("morag_meta.jobs.log._IDLE_SECONDS", IDLE_SECONDS)  # longer than a machine pauses
    owner = _owner(database)
    _write(database, owner, 3)

    async def run() -> None:
        sequencer = Sequencer(database)
        running = asyncio.create_task(sequencer.run())
        with database.unit_of_work() as other:
            assert other.log.number(1) == 1
            waiting = asyncio.create_task(sequencer.settle())
            await asyncio.sleep(0.2)
            assert not waiting.done()
            other.commit()
        await waiting
        assert (await database.read(lambda uow: uow.log.look()))["position"] == 3
        running.cancel()

    asyncio.run(run())


def test_a_failed_pass_is_not_the_last(database: Database) -> None:
    """After the database was away for a pass, the next one numbers what is there."""
    owner = _owner(database)
    _write(database, owner, 1)

    async def run() -> None:
        sequencer = Sequencer(database)
        running = asyncio.create_task(sequencer.run())
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ALTER TABLE job_log RENAME TO job_log_away")
        await sequencer.settle()
        with database.engine.connect() as connection:
            connection.exec_driver_sql("ALTER TABLE job_log_away RENAME TO job_log")
        await asyncio.sleep(0.3)
        sequencer.wake()
        await _numbered(database, 1)
        running.cancel()

    asyncio.run(run())


@pytest.fixture
def servers(database_url: str, tmp_path: Path) -> Iterator[tuple[list[ServerProcess], str]]:
    """Give three running servers of one database, and a user's key."""
    key = prepare(database_url)
    started = [ServerProcess(database_url, tmp_path / f"{number}.log") for number in "abc"]
    for server in started:
        server.start()
    yield started, key
    for server in started:
        if server.process.poll() is None:
            os.kill(server.process.pid, signal.SIGCONT)
        server.close()


class _Stub:
    """One user's stub of one server."""

    def __init__(self, target: str, key: str) -> None:
        self.channel = grpc.insecure_channel(target)
        self._stub = jobs_pb2_grpc.JobServiceStub(self.channel)
        self._metadata = (("x-api-key", key),)

    def WatchJobs(self, request: pb.WatchJobsRequest) -> object:  # noqa: N802 - as the stub has it
        """Watch."""
        return self._stub.WatchJobs(request, metadata=self._metadata, timeout=120)

    def add_job(self) -> str:
        """Create a job, and give its id."""
        request = pb.CreateJobRequest(job=pb.Job(kind="REINDEX"))
        return str(self._stub.CreateJob(request, metadata=self._metadata, timeout=20).id)


def test_a_process_that_stops_or_dies_stalls_nobody(
    database_url: str, servers: tuple[list[ServerProcess], str]
) -> None:
    """Servers paused and killed at any moment under traffic: what the others commit is told within 2 s."""
    processes, key = servers
    stubs = [_Stub(server.target, key) for server in processes]
    many = Many(stubs[0]).synced(20)
    newest = dict.fromkeys((stubs[place % 3].add_job() for place in range(9)), 1)
    is_sqlite = database_url.startswith("sqlite")  # a paused writer may hold the file
    for round_ in range(4):
        victim = processes[1 + round_ % 2]
        for _ in range(5):
            newest[stubs[1 + round_ % 2].add_job()] = 1
        if is_sqlite or round_ == 3:
            victim.kill()
        else:
            os.kill(victim.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        job_id = stubs[0].add_job()
        newest[job_id] = 1
        many.wait_for(job_id, 1, 10)
        assert time.monotonic() - started < 4.0  # two of them for a busy machine
        if is_sqlite or round_ == 3:
            victim.start()
        else:
            os.kill(victim.process.pid, signal.SIGCONT)
    for job_id in newest:
        many.wait_for(job_id, 1, 10)
    many.leave()

    expect_whole(many.frames, newest)
