"""What the tests of the client share: a proxy that loses answers, and servers that are killed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from morag_client import connect
from moragmeta.v1 import jobs_pb2
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub
from tests.backends.proxy import Proxy
from tests.processes import ServerProcess, prepare
from tests.service import Service, User

FINAL = (jobs_pb2.JOB_STATE_FINISHED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED)


class Line(Proxy):
    """A line between a client and a gRPC server, which can lose an answer."""

    def __init__(self, target: str) -> None:
        """Stand before the server; ``target`` is then the address that leads through here."""
        super().__init__(f"grpc://{target}")
        self.target = self.url.removeprefix("grpc://")
        self._done: Callable[[], bool] = lambda: False
        self.lost = 0

    def lose_answer(self, pattern: bytes, done: Callable[[], bool]) -> None:
        """Hang up once on the client that sends ``pattern``, when the server has done what it asks for."""
        self._done = done
        self.cut_at(pattern, arrives=True)

    def _is_cut(self, client: socket.socket, server: socket.socket, data: bytes) -> bool:
        with self._lock:
            if not self._pattern or self._pattern not in data:
                return False
            self._pattern = b""
        server.sendall(data)
        until(self._done)
        self.lost += 1
        return True


def until(done: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


class Owner:
    """A user who makes jobs and looks at them."""

    def __init__(self, target: str, key: str) -> None:
        self.target = target
        self.key = key
        self.channel = connect(target, key)
        self.stub = JobServiceStub(self.channel)

    def job(self, kind: str = "CHECK", **fields: object) -> jobs_pb2.Job:
        """Make a job."""
        return self.stub.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind=kind, **fields)))  # type: ignore[arg-type]

    def now(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        """Give a job as it is now."""
        return self.stub.GetJob(jobs_pb2.GetJobRequest(id=job.id), wait_for_ready=True)

    def cancel(self, job: jobs_pb2.Job) -> None:
        """Cancel a job."""
        self.stub.CancelJob(jobs_pb2.CancelJobRequest(id=job.id, reason="not wanted"))

    def events(self, job: jobs_pb2.Job) -> list[jobs_pb2.JobEvent]:
        """Give a job's events as they are listed."""
        request = jobs_pb2.ListJobEventsRequest(job_id=job.id, page_size=1000)
        return list(self.stub.ListJobEvents(request).events)

    def ended(self, *jobs: jobs_pb2.Job) -> bool:
        """Say whether every one of these has ended."""
        return all(self.now(job).state in FINAL for job in jobs)


@pytest.fixture
def owner(service: Service, user: User) -> Iterator[Owner]:
    """Give a fresh user of the run's server."""
    made = Owner(service.target, user.key)
    yield made
    made.channel.close()


@pytest.fixture
def line(service: Service) -> Iterator[Line]:
    """Stand between clients and the run's server."""
    with Line(service.target) as made:
        yield made


@pytest.fixture
def process(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """Give a server process that a test may kill; it is not started yet."""
    made = ServerProcess(database_url, tmp_path / "log")
    yield made
    made.close()


@pytest.fixture
def mortal(process: ServerProcess, database_url: str) -> Iterator[Owner]:
    """Start that process, and give its user."""
    key = prepare(database_url)
    process.start(90.0)
    made = Owner(process.target, key)
    yield made
    made.channel.close()


@pytest.fixture
def channel(owner: Owner) -> grpc.Channel:
    """Give that user's channel."""
    return owner.channel
