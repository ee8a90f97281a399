"""What tests of outages ask of a service again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from morag_meta.errors import Unavailable
from moragmeta.v1 import jobs_pb2, servers_pb2, users_pb2
from tests.service import Service, User


def read(user: User) -> Any:
    """Read something that no cache holds."""
    return user.channel.users.GetUser(users_pb2.GetUserRequest(id="me"))


def write(user: User, name: str, request_id: str = "") -> Any:
    """Write something."""
    kind = servers_pb2.SERVER_KIND_QDRANT
    server = servers_pb2.Server(name=name, kind=kind, host="h", port=1)
    request = servers_pb2.CreateServerRequest(server=server, request_id=request_id)
    return user.channel.servers.CreateServer(request)


def new_job(user: User) -> str:
    """Make a job that somebody may watch."""
    made = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REINDEX")))
    return str(made.id)


def outcome(call: Callable[[], Any]) -> tuple[str, str, float]:
    """Call, and give the code, the reason and the seconds until a retry; OK has neither of these."""
    try:
        call()
    except grpc.RpcError as caught:
        return read_error(caught)
    return "OK", "", 0.0


def read_error(caught: Any) -> tuple[str, str, float]:
    """Give code, reason and delay of an error."""
    data = dict(caught.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    reason, delay = "", 0.0
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status_pb2.Status.FromString(data).details:
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            delay = retry.retry_delay.ToMilliseconds() / 1000
    return caught.code().name, reason, delay


def at_once(count: int, call: Callable[[int], Any]) -> list[tuple[str, str, float]]:
    """Call that often at the same time, and give the outcomes."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: outcome(lambda: call(number)), range(count)))


def until_made(service: Service, seconds: float = 20) -> User:
    """Make a user, where need be once the database is in time again."""
    end = time.monotonic() + seconds
    while True:
        try:
            return service.new_user()
        except Unavailable:
            assert time.monotonic() < end
            time.sleep(0.05)


def until_served(user: User, calls: int = 1, seconds: float = 20) -> None:
    """Wait until so many reads at once succeed again, and so many writes."""
    end = time.monotonic() + seconds
    while True:
        served = at_once(calls, lambda _: read(user))
        served += at_once(calls, lambda number: write(user, f"again {number} {time.monotonic()}"))
        if all(code == "OK" for code, _, _ in served):
            return
        assert time.monotonic() < end, served
        time.sleep(0.05)
