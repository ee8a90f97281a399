"""Health on a port of its own: what it tells, what it does not offer, and until when."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from morag_meta.exits import ExitCode
from moragmeta.v1 import users_pb2, users_pb2_grpc
from tests.backends.daemon import free_port
from tests.backends.databases import Backend, ServerDatabases, chosen_kinds
from tests.certificates import Authority
from tests.server.processes import NOT_SERVING, SERVING, run, served

_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
_SERVERS = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)
AUTHORITY = Authority()


def _asked(port: int, service: str = "") -> int | None:
    """Ask over a connection of its own; None when nobody answers."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", (("grpc.use_local_subchannel_pool", 1),)) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)
        except grpc.RpcError:
            return None


def _until(true: Callable[[], bool], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def _code(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    code: grpc.StatusCode = error.code()
    return code


@_SQLITE
@pytest.mark.parametrize("workers", ["1", "2"])
def test_health_is_told_and_nothing_else(tmp_path: Path, database_url: str, workers: str) -> None:
    """Without TLS and without a key the port tells health, also beside a port with TLS, and nothing else."""
    port = free_port()
    certificate, key = AUTHORITY.issue("server").write(tmp_path)
    secure = {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
    trusting = grpc.ssl_channel_credentials(AUTHORITY.certificate)
    words = ("--workers", workers)
    address = f"127.0.0.1:{port}"
    with (
        served(
            tmp_path, database_url, *words, credentials=trusting, HEALTH_ADDRESS=address, **secure
        ) as service,
        grpc.insecure_channel(address) as channel,
    ):
        assert [_asked(port, name) for name in ("", "readiness", "liveness")] == [SERVING] * 3
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        users = users_pb2_grpc.UserServiceStub(channel)
        me = users_pb2.GetUserRequest(id="me")
        assert _code(lambda: users.GetUser(me)) is grpc.StatusCode.UNIMPLEMENTED
        mirror: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        reflected = mirror.ServerReflectionInfo(iter([question]))
        assert _code(lambda: next(reflected)) is grpc.StatusCode.UNIMPLEMENTED
        assert service.end() == ExitCode.OK
        assert [each.status for each in watch] == [NOT_SERVING]
    assert _asked(port) is None


def _slow_login(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        request = users_pb2.LoginRequest(email="admin@localhost", password="wrong password")
        users_pb2_grpc.UserServiceStub(channel).Login(request, timeout=60)


@_SQLITE
def test_drain_is_told_until_its_end(tmp_path: Path, database_url: str) -> None:
    """While the last calls finish, the port says that none is to be sent here, and that the process lives."""
    port = free_port()
    variables = {"HEALTH_ADDRESS": f"127.0.0.1:{port}", "BCRYPT_COST": "16", "SHUTDOWN_GRACE": "60"}
    with (
        served(tmp_path, database_url, **variables) as service,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        calls = [pool.submit(_slow_login, service.target) for _ in range(4)]
        service.computes()
        service.running.terminate()
        _until(lambda: _asked(port) != SERVING)
        assert (_asked(port), _asked(port, "liveness")) == (NOT_SERVING, SERVING)
        assert service.running.wait(60) == ExitCode.OK
        assert all(isinstance(call.exception(20), grpc.RpcError) for call in calls)


@_SERVERS
def test_every_process_tells_an_outage(tmp_path: Path, backend: Backend, database_url: str) -> None:
    """While the database is away no answer from the port is SERVING, whichever process gives it."""
    assert isinstance(backend, ServerDatabases)
    port = free_port()
    with served(tmp_path, database_url, "--workers", "2", HEALTH_ADDRESS=f"127.0.0.1:{port}") as service:
        while len([event for event in service.events if event["event"] == "serving health"]) < 2:
            time.sleep(0.05)
        backend.server.pause()
        try:
            _until(lambda: {_asked(port) for _ in range(20)} == {NOT_SERVING})
            assert {_asked(port) for _ in range(20)} == {NOT_SERVING}
            assert {_asked(port, "liveness") for _ in range(5)} == {SERVING}
        finally:
            backend.server.resume()


@_SQLITE
def test_address_of_another_is_refused(tmp_path: Path, database_url: str) -> None:
    """The port of another service, or of the service itself, is one line that names the variable."""
    with served(tmp_path, database_url) as service:
        words = ("serve", "--address", "127.0.0.1:0", "--database-url", database_url)
        taken = run(*words, folder=tmp_path, HEALTH_ADDRESS=service.target)
    assert taken.returncode == ExitCode.ADDRESS_IN_USE
    assert f"address {service.target} is in use" in taken.stderr
    assert taken.stderr.endswith("choose another address with MORAG_HEALTH_ADDRESS\n")
    words = ("serve", "--address", service.target, "--database-url", database_url)
    own = run(*words, folder=tmp_path, HEALTH_ADDRESS=service.target)
    assert own.returncode == ExitCode.CONFIGURATION
    assert "MORAG_HEALTH_ADDRESS is the service's own address" in own.stderr
    odd = run("serve", folder=tmp_path, HEALTH_ADDRESS="everywhere")
    assert odd.returncode == ExitCode.CONFIGURATION
    assert odd.stderr.startswith("error: MORAG_HEALTH_ADDRESS is 'everywhere'")


@_SQLITE
def test_command_asks_the_machines_own_port(tmp_path: Path, database_url: str) -> None:
    """``morag-meta health`` without a target asks the port for health, though calls would go by TLS."""
    address = f"127.0.0.1:{free_port()}"
    with served(tmp_path, database_url, HEALTH_ADDRESS=address):
        variables = {"HEALTH_ADDRESS": address, "CA_FILE": "no.crt", "GRPC_ADDRESS": "127.0.0.1:1"}
        asked = run("health", folder=tmp_path, **variables)
    assert (asked.returncode, asked.stdout) == (ExitCode.OK, "SERVING\n")
