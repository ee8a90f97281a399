"""The very process that holds the log's row is killed or stopped: who watches another one hardly notices.

What is committed while a row of the test's own keeps that process amid its work waits for the test; from
when the row is let go, every event is to be told within two seconds of its commit. Two seconds more are
allowed here, in which a busy machine carries a call and a frame, or stands still for one of them.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from morag_meta.db.schema import job_events, users
from morag_meta.jobs.actions import create_job
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import jobs_pb2_grpc
from tests.backends.databases import chosen_kinds
from tests.jobs.barrier import barrier, stop, who_stands
from tests.jobs.many import Many, expect_whole
from tests.jobs.written import Shelf
from tests.processes import ServerProcess, prepare

PROMISED, ALLOWED = 2.0, 2.0
_TRAFFIC_SECONDS = 4.0


class Watched:
    """A server process, a user's calls to it, and a stream over all of the user's jobs."""

    def __init__(self, server: ServerProcess, key: str) -> None:
        self.server = server
        self._channel = grpc.insecure_channel(server.target)
        self._stub = jobs_pb2_grpc.JobServiceStub(self._channel)
        self._metadata = (("x-api-key", key),)
        self.many = Many(self).synced(20)

    def WatchJobs(self, request: pb.WatchJobsRequest) -> object:  # noqa: N802 - as the stub has it
        """Watch."""
        return self._stub.WatchJobs(request, metadata=self._metadata, timeout=120)

    def add_job(self) -> str:
        """Create a job, and give its id."""
        request = pb.CreateJobRequest(job=pb.Job(kind="REINDEX"))
        return str(self._stub.CreateJob(request, metadata=self._metadata, timeout=20).id)

    def close(self) -> None:
        """Disconnect."""
        self.many.leave()
        self._channel.close()


@pytest.fixture
def key(database_url: str) -> str:
    """Give the API key of the one user of a fresh database."""
    return prepare(database_url)


@pytest.fixture
def three(database_url: str, key: str, shelf: Shelf, tmp_path: Path) -> Iterator[list[Watched]]:
    """Give three processes of one database, each with a watcher."""
    del shelf  # which is closed after them
    servers = [ServerProcess(database_url, tmp_path / name) for name in "abc"]
    for server in servers:
        server.start()
    watched = [Watched(server, key) for server in servers]
    yield watched
    for one in watched:
        if one.server.process.poll() is None:
            os.kill(one.server.process.pid, signal.SIGCONT)
        one.close()
        one.server.close()


@pytest.fixture
def owner(key: str, shelf: Shelf) -> str:
    """Give the id of the user."""
    del key
    (found,) = shelf.column(sa.select(users.c.id))
    return str(found)


def _expect_no_stall(others: list[Watched], committed: dict[str, float]) -> None:
    """Make jobs for a while; each is told by each of the processes in time, and so is what was there before.

    ``committed`` has those by their ids, with the time from which theirs counts.
    """
    end = time.monotonic() + _TRAFFIC_SECONDS
    place = 0
    while time.monotonic() < end:
        sent = time.monotonic()
        committed[others[place % len(others)].add_job()] = sent
        place += 1
        time.sleep(0.05)
    for one in others:
        for job_id in committed:
            one.many.wait_for(job_id, 1, 10)
        late = {job: one.many.arrived[job, 1] - sent for job, sent in committed.items()}
        assert max(late.values()) <= PROMISED + ALLOWED
        expect_whole(one.many.frames, dict.fromkeys(committed, 1))


@contextmanager
def _event_without_a_place(shelf: Shelf, owner: str) -> Iterator[str]:
    """Make a job, and hold its event from before it gets a position, so that whoever numbers stands there."""
    while True:
        job_id = shelf.do(lambda uow: create_job(uow, owner, kind="REINDEX")["id"])
        with barrier(shelf.database, sa.select(job_events).where(job_events.c.job_id == job_id)) as (event,):
            if event.position is None:  # or somebody was faster than this test
                yield job_id
                return


@pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_when_who_holds_the_row_dies_or_stops_others_go_on(
    shelf: Shelf, owner: str, three: list[Watched], sent: signal.Signals
) -> None:
    """Killed or stopped amid numbering, the holder stalls no event on the other processes for over 2 s."""
    for one in three:
        one.many.wait_for(three[0].add_job(), 1)
    with _event_without_a_place(shelf, owner) as held:
        victim = who_stands(shelf.database, [one.server for one in three])
        assert shelf.do(lambda uow: uow.log.number()) is None  # somebody has the log's row: the victim
        stop(victim, sent)
    committed = {held: time.monotonic()}
    _expect_no_stall([one for one in three if one.server is not victim], committed)

    if sent is signal.SIGSTOP:
        os.kill(victim.process.pid, signal.SIGCONT)
        (behind,) = [one.many for one in three if one.server is victim]
        for job_id in committed:
            behind.wait_for(job_id, 1, 20)
        expect_whole(behind.frames, dict.fromkeys(committed, 1))


def _is_held(file: str) -> bool:
    """Whether nobody can write for a tenth of a second; whoever works lets others in between two batches."""
    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        for _ in range(20):
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                time.sleep(0.005)
            else:
                connection.execute("ROLLBACK")
                return False
    return True


def _stop_who_writes(shelf: Shelf, file: str, three: list[Watched]) -> Watched:
    """Give very many events to be numbered, and stop one process after the other until one holds the file."""
    other = shelf.owner()
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        if shelf.do(lambda uow: uow.log.look()["waiting"]) < 1000:
            shelf.write(other, *[{"state": "PENDING"}] * 1000, first=None)
        for one in three:
            stop(one.server, signal.SIGSTOP)
            if _is_held(file):
                return one
            os.kill(one.server.process.pid, signal.SIGCONT)
            time.sleep(0.002)
    raise AssertionError("no process was met while it wrote")


@pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind == "sqlite"], indirect=True, scope="session"
)
def test_when_who_holds_the_file_dies_others_go_on(
    shelf: Shelf, owner: str, three: list[Watched], database_url: str
) -> None:
    """On SQLite a stopped writer holds the file for as long as it is there; killed, it stalls nobody more."""
    del owner
    for one in three:
        one.many.wait_for(three[0].add_job(), 1)
    victim = _stop_who_writes(shelf, database_url.removeprefix("sqlite:///"), three)
    stop(victim.server, signal.SIGKILL)
    _expect_no_stall([one for one in three if one is not victim], {})
