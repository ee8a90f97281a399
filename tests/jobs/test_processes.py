"""The stream's promise when processes die: two servers, one database, SIGKILL at any moment."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import jobs_pb2_grpc
from tests.processes import ServerProcess, prepare

_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


class Client:
    """A caller who goes to whichever server answers, and repeats what is safe to repeat."""

    def __init__(self, targets: list[str], key: str) -> None:
        self._metadata = (("x-api-key", key),)
        self._channels = [grpc.insecure_channel(target) for target in targets]
        self._stubs = [jobs_pb2_grpc.JobServiceStub(channel) for channel in self._channels]
        self._turn = 0

    def call(self, method: str, request: Any) -> Any:
        """Call until it is answered; every call here has a request id or a report number."""
        for _ in range(400):
            self._turn += 1
            stub = self._stubs[self._turn % len(self._stubs)]
            try:
                return getattr(stub, method)(request, timeout=5, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() not in (*_AGAIN, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                time.sleep(0.05)
        raise AssertionError("no server answered")

    def watch(self, job_id: str, seen: list[int]) -> None:
        """Watch until the final event, coming back with the last number after every break."""
        for _ in range(2000):
            self._turn += 1
            stub = self._stubs[self._turn % len(self._stubs)]
            request = pb.WatchJobRequest(job_id=job_id, after_sequence=seen[-1] if seen else 0)
            try:
                for frame in stub.WatchJob(request, timeout=60, metadata=self._metadata):
                    if frame.HasField("event"):
                        seen.append(frame.event.sequence)  # noqa: PERF401 - kept also when the stream breaks
            except grpc.RpcError as error:
                if error.code() not in _AGAIN:
                    raise
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the final event never came")

    def close(self) -> None:
        """Disconnect."""
        for channel in self._channels:
            channel.close()


@pytest.fixture
def key_of(database_url: str) -> str:
    """Give the API key of a user in a fresh database."""
    return prepare(database_url)


@pytest.fixture
def servers(database_url: str, tmp_path: Path, key_of: str) -> Iterator[list[ServerProcess]]:
    """Give two running servers of one database."""
    del key_of  # made first, so that no server makes an admin of its own
    started = [
        ServerProcess(database_url, tmp_path / f"{number}.log", stream_poll_interval=0.1) for number in "ab"
    ]
    for server in started:
        server.start()
    yield started
    for server in started:
        server.close()


def _work(client: Client, reports: int) -> Callable[[str], None]:
    def run(job_id: str) -> None:
        start = pb.StartJobRequest(id=job_id, request_id=str(uuid.uuid4()))
        client.call("StartJob", start)
        for number in range(1, reports + 1):
            client.call(
                "UpdateJobProgress",
                pb.UpdateJobProgressRequest(
                    id=job_id, attempt=1, report_number=number, percentage=number * 100 // reports
                ),
            )
        client.call("CompleteJob", pb.CompleteJobRequest(id=job_id, attempt=1, report_number=reports + 1))

    return run


def _in_thread(failures: list[BaseException], run: Callable[..., Any], *arguments: Any) -> threading.Thread:
    def guarded() -> None:
        try:
            run(*arguments)
        except BaseException as error:  # noqa: BLE001 - told by the test, whatever it is
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    return thread


def _expect_everything_once(
    servers: list[ServerProcess], key: str, disturb: Callable[[random.Random], None], reports: int
) -> None:
    targets = [server.target for server in servers]
    clients = [Client(targets, key) for _ in range(6)]
    failures: list[BaseException] = []
    jobs = [
        clients[0].call("CreateJob", pb.CreateJobRequest(job=pb.Job(kind="X"), request_id=str(uuid.uuid4())))
        for _ in range(2)
    ]
    seen: list[list[int]] = [[] for _ in range(4)]
    threads = [
        _in_thread(failures, clients[2 + number].watch, jobs[number % 2].id, seen[number])
        for number in range(4)
    ]
    threads += [_in_thread(failures, _work(clients[n], reports), jobs[n].id) for n in range(2)]
    chance = random.Random(7)  # noqa: S311 - a test's order of events
    while any(thread.is_alive() for thread in threads[4:]):
        disturb(chance)
    for thread in threads:
        thread.join(60)
    for client in clients:
        client.close()

    assert not failures
    # Created, started, each report, completed: numbered from 1 without a gap, each of them once.
    assert seen == [list(range(1, reports + 4))] * 4


def test_killing_servers_loses_and_repeats_no_event(servers: list[ServerProcess], key_of: str) -> None:
    """With either server killed again and again, watchers see every event of every job once, in order."""

    def kill_one(chance: random.Random) -> None:
        time.sleep(chance.uniform(0.2, 1.0))
        victim = chance.choice(servers)
        victim.kill()
        time.sleep(chance.uniform(0.0, 0.3))
        victim.start()

    _expect_everything_once(servers, key_of, kill_one, reports=120)


def test_a_rolling_restart_loses_and_repeats_no_event(servers: list[ServerProcess], key_of: str) -> None:
    """With one server after the other drained and started again, nothing is lost, and each ends with 0."""

    def restart_one(chance: random.Random) -> None:
        time.sleep(chance.uniform(0.2, 0.6))
        server = servers[0]
        assert server.terminate() == 0
        server.start()
        servers.reverse()

    _expect_everything_once(servers, key_of, restart_one, reports=120)
