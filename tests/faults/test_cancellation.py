"""Clients that cancel everything: nothing grows, nothing is half done, and who stays is served."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from moragmeta.v1 import jobs_pb2, servers_pb2, users_pb2
from tests.service import Channel, Service, User

CALLS = 400


def _until(true: Callable[[], bool], seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def _grpc_tasks(service: Service) -> int:
    """Count the calls that the server's event loop still has."""

    async def count() -> int:
        return sum(task.get_name() == "rpc_task" for task in asyncio.all_tasks())

    return int(service.on_loop(count()))


def _server(name: str) -> Any:
    kind = servers_pb2.SERVER_KIND_QDRANT
    return servers_pb2.CreateServerRequest(
        server=servers_pb2.Server(name=name, kind=kind, host="h", port=1), request_id=name
    )


def test_hundreds_of_cancelled_calls_leave_nothing(service: Service, user: User) -> None:
    """After hundreds of calls cancelled at any moment there are no more calls, threads or transactions."""
    threads, before = threading.active_count(), _grpc_tasks(service)
    stubs = user.channel
    for number in range(CALLS):
        call: Any = (
            stubs.servers.CreateServer.future(_server(f"cancelled-{number}"))
            if number % 2
            else stubs.jobs.ListJobs.future(jobs_pb2.ListJobsRequest())
        )
        if number % 3:
            time.sleep(random.uniform(0, 0.003))  # noqa: S311 - any moment
        call.cancel()
    _until(lambda: _grpc_tasks(service) <= before)
    most = service.settings.database_pool_size + service.settings.database_max_overflow
    _until(lambda: threading.active_count() <= threads + most)
    made = stubs.servers.ListServers(servers_pb2.ListServersRequest(page_size=1000)).servers
    for number in range(1, CALLS, 2):  # each happened once or not at all, and can be settled
        stubs.servers.CreateServer(_server(f"cancelled-{number}"))
    names = [
        server.name
        for server in stubs.servers.ListServers(servers_pb2.ListServersRequest(page_size=1000)).servers
    ]
    assert sorted(names) == sorted(f"cancelled-{number}" for number in range(1, CALLS, 2))
    assert {server.name for server in made} <= set(names)


def test_hundreds_of_cancelled_streams_leave_nothing(service: Service, user: User) -> None:
    """After hundreds of watchers that left at any moment none is remembered, and a new one is served."""
    job = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    request = jobs_pb2.WatchJobRequest(job_id=job.id)
    before = _grpc_tasks(service)  # streams of earlier tests that nobody ended
    for number in range(CALLS):
        stream: Any = user.channel.jobs.WatchJob(request)
        if number % 4 == 0:
            next(stream)
        stream.cancel()
    _until(lambda: _grpc_tasks(service) <= before)
    gc.collect()
    stream = user.channel.jobs.WatchJob(request)
    assert next(stream).event.sequence == 1
    stream.cancel()


def test_clients_that_vanish_leave_nothing(service: Service, user: User) -> None:
    """Connections that are closed with calls and streams open on them leave no call behind."""
    job = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    before = _grpc_tasks(service)
    for _ in range(40):
        channel = Channel(service.target, (("x-api-key", user.key),))
        streams = [channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id)) for _ in range(5)]
        calls = [channel.jobs.ListJobs.future(jobs_pb2.ListJobsRequest()) for _ in range(5)]
        channel.close()
        del streams, calls
    _until(lambda: _grpc_tasks(service) <= before)
    assert user.channel.users.GetUser(users_pb2.GetUserRequest(id="me")).id == user.id


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
def test_a_deadline_that_passes_is_the_clients_alone(service: Service, user: User) -> None:
    """Calls with next to no time are answered or hear DEADLINE_EXCEEDED, and hurt nobody else."""
    codes, before = set(), _grpc_tasks(service)
    for number in range(200):
        try:
            stub: Any = user.channel.servers.ListServers
            stub(servers_pb2.ListServersRequest(), timeout=number % 4 / 1000 + 0.0001)
        except grpc.RpcError as caught:
            error: Any = caught
            codes.add(error.code().name)
    assert codes == {"DEADLINE_EXCEEDED"}
    _until(lambda: _grpc_tasks(service) <= before)
    user.channel.servers.ListServers(servers_pb2.ListServersRequest())
