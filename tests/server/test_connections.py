"""What holds for connections: their calls, metadata, pings and age, and whose word ends a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from morag_client import channel as client
from morag_client import connect
from morag_meta.config.settings import Settings
from moragmeta.v1 import jobs_pb2, users_pb2
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub
from moragmeta.v1.users_pb2_grpc import UserServiceStub
from tests.backends.databases import open_backend
from tests.refusals import refused
from tests.service import Channel, Service

_ME = users_pb2.GetUserRequest(id="me")
_OPTIONS: tuple[tuple[str, int], ...] = vars(client)["_OPTIONS"]
_PERMITTED: float = Settings.model_fields["grpc_min_ping_interval"].default
_ALL = jobs_pb2.WatchJobsRequest()


@contextmanager
def _serving(**settings: Any) -> Iterator[Service]:
    with open_backend("sqlite") as backend:
        service = Service(backend.new_url(), "sqlite", **settings)
        try:
            yield service
        finally:
            service.close()


def _error(frames: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        list(frames)
    return caught.value


def test_metadata_is_refused_beyond_its_limit() -> None:
    """Metadata below the limit is taken each time, and above it refused each time, never by chance."""
    with _serving(grpc_max_metadata_bytes=6000) as service:
        users = service.new_user().channel.users
        for _ in range(10):
            users.GetUser(_ME, metadata=(("x-some", "y" * 5000),))
        for _ in range(10):
            with pytest.raises(grpc.RpcError) as caught:
                users.GetUser(_ME, metadata=(("x-some", "y" * 6500),))
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_connection_has_so_many_calls_at_once() -> None:
    """Beyond its calls at once a connection makes a new one wait, and another connection does not."""
    with _serving(grpc_max_connection_calls=2) as service:
        user = service.new_user()
        opened = [user.channel.jobs.WatchJobs(_ALL) for _ in range(2)]
        assert [next(frames).WhichOneof("frame") for frames in opened] == ["sync", "sync"]
        with pytest.raises(grpc.RpcError) as caught:
            user.channel.users.GetUser(_ME, timeout=1)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        options = (("grpc.use_local_subchannel_pool", 1),)  # a connection of its own
        with grpc.insecure_channel(service.target, options) as other:
            UserServiceStub(other).GetUser(_ME, timeout=10, metadata=(("x-api-key", user.key),))
        opened[0].cancel()
        assert user.channel.users.GetUser(_ME, timeout=10).id == user.id


def test_user_has_so_many_streams_at_once() -> None:
    """The streams of a user are counted over all connections and kinds, those of others are not."""
    with _serving(stream_limit=3) as service:
        user, other = service.new_user(), service.new_user()
        job = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REPORT")))
        second = service.channel(api_key=user.key)
        opened = [user.channel.jobs.WatchJobs(_ALL), second.jobs.WatchJobs(_ALL)]
        opened.append(second.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id)))
        for frames in opened:
            next(frames)
        for refusing in (second.jobs.WatchJobs(_ALL), user.channel.jobs.WatchJobs(_ALL)):
            with refused("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS") as refusal:
                list(refusing)
            assert refusal.metadata == {"limit": "3"}
        next(other.channel.jobs.WatchJobs(_ALL))
        opened[0].cancel()
        _until_one_is_free(second)


def _until_one_is_free(channel: Channel) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            next(channel.jobs.WatchJobs(_ALL))
            return
        except grpc.RpcError:
            assert time.monotonic() < end
            time.sleep(0.05)


def _shipped(name: str) -> int:
    (value,) = [value for option, value in _OPTIONS if option == name]
    return value


def test_shipped_client_pings_within_what_is_permitted() -> None:
    """The client's pause between pings is twice what the service asks for, or more."""
    assert _shipped("grpc.keepalive_time_ms") >= 2 * _PERMITTED * 1000


def _idle(monkeypatch: pytest.MonkeyPatch, pause: int, permitted: float) -> Any:
    """Have the client ping every ``pause`` ms on a stream that is silent for 9 s; give how that ends."""
    options = tuple((name, pause if name == "grpc.keepalive_time_ms" else value) for name, value in _OPTIONS)
    monkeypatch.setattr(client, "_OPTIONS", options)
    with (
        _serving(grpc_min_ping_interval=permitted, stream_heartbeat=3600) as service,
        connect(service.target, service.new_user().key) as channel,
    ):
        frames = JobServiceStub(channel).WatchJobs(_ALL, timeout=9)
        assert next(frames).WhichOneof("frame") == "sync"
        return _error(frames)


def test_shipped_client_may_idle_for_many_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent stream of the shipped client is left alone; all times are a twentieth of the real ones."""
    pause = _shipped("grpc.keepalive_time_ms") // 20
    error = _idle(monkeypatch, pause, _PERMITTED / 20)
    assert pause == 1000  # gRPC's core sends no two pings sooner, so nothing smaller would be true
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_client_that_pings_too_often_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that pings every second, on a silent stream of a service as it is shipped, is cut off."""
    error = _idle(monkeypatch, 1000, _PERMITTED)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "Too many pings" in error.details()


def test_stream_outlives_its_connections_age_and_ends_by_our_word() -> None:
    """A connection of age takes no new calls, those go on another, and its stream ends as STREAM_AGED."""
    with _serving(grpc_connection_age=1, stream_max_age=7) as service:
        assert service.settings.connection_grace == 67
        user = service.new_user()
        began = time.monotonic()
        frames = user.channel.jobs.WatchJobs(_ALL)
        assert next(frames).WhichOneof("frame") == "sync"
        while time.monotonic() - began < 2.5:
            user.channel.users.GetUser(_ME)
            time.sleep(0.02)
        assert _connections(service.port) >= 2
        with refused("UNAVAILABLE", "STREAM_AGED"):
            list(frames)
        assert time.monotonic() - began > 6.2


def test_shorter_grace_would_cut_streams_without_a_word() -> None:
    """With a grace that the settings do not accept, gRPC ends the stream, and no reason is given."""
    with _serving(grpc_connection_age=1, grpc_connection_grace=1, stream_max_age=30) as service:
        frames = service.new_user().channel.jobs.WatchJobs(_ALL)
        assert next(frames).WhichOneof("frame") == "sync"
        error = _error(frames)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "grpc-status-details-bin" not in dict(error.trailing_metadata() or ())


def _connections(port: int) -> int:
    """Count the connections that the port has accepted and not closed."""
    established = "01"
    tables = (Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    found = [line.split()[1:4] for table in tables for line in table]
    return sum(local.endswith(f":{port:04X}") and state == established for local, _, state in found)
