"""One serving process: its first start, its refusals, and its end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from morag_meta.db.database import Database
from morag_meta.exits import ExitCode
from morag_meta.server.process import SAME_SIGNAL_SECONDS
from moragmeta.v1 import api_keys_pb2, jobs_pb2, users_pb2
from tests.backends.databases import Backend, ServerDatabases, chosen_kinds
from tests.server.processes import NOT_SERVING, SERVING, Served, run, served
from tests.service import Channel

_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
_SERVERS = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)


def first_key(service: Served) -> str:
    """Give the key that a first start prints as its one line, without waiting for the end."""
    stdout = service.running.stdout
    assert stdout is not None
    line = stdout.readline()
    assert line.startswith("admin API key: morag_"), line
    return line.removeprefix("admin API key: ").strip()


def test_first_start_prints_one_key_that_works(tmp_path: Path, database_url: str) -> None:
    """On every database the first start migrates and prints an ADMIN's key; the second prints nothing."""
    with served(tmp_path, database_url) as service:
        channel = Channel(service.target, (("x-api-key", first_key(service)),))
        me = channel.users.GetUser(users_pb2.GetUserRequest(id="me"))
        assert me.role == 3
        channel.close()
        assert service.end() == ExitCode.OK
        assert service.out == ""
    with served(tmp_path, database_url, port=service.port) as again:
        assert again.end() == ExitCode.OK
        assert again.out == ""


@_SQLITE
def test_logs_show_no_key(tmp_path: Path, database_url: str) -> None:
    """Calls with a key, right or wrong, leave no trace of it in the log, even at DEBUG."""
    with served(tmp_path, database_url, LOG_LEVEL="DEBUG") as service:
        key, wrong = first_key(service), "morag_" + "B" * 43
        for each in (key, wrong):
            channel = Channel(service.target, (("x-api-key", each), ("authorization", f"Bearer {each}")))
            for _ in range(2):
                try:
                    channel.users.GetUser(users_pb2.GetUserRequest(id="me"))
                except grpc.RpcError:
                    continue
            channel.close()
        service.end()
        assert service.log
        for each in (key, wrong):
            assert each not in service.log


@_SQLITE
def test_sigterm_with_open_streams_ends_in_time(tmp_path: Path, database_url: str) -> None:
    """Health watchers are told, job watchers are told to resume, and the exit is 0 within the grace."""
    with served(tmp_path, database_url, SHUTDOWN_GRACE="40") as service:
        channel = Channel(service.target, (("x-api-key", first_key(service)),))
        health: Any = health_pb2_grpc.HealthStub(channel.raw)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        job = channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REPORT")))
        frames = channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
        assert next(frames).event.sequence == 1
        began = time.monotonic()
        assert service.end() == ExitCode.OK
        assert time.monotonic() - began < 20
        assert [each.status for each in watch] == [NOT_SERVING]
        with pytest.raises(grpc.RpcError) as caught:
            list(frames)
        error: Any = caught.value
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        channel.close()


@contextmanager
def _slow_logins(service: Served, count: int) -> Iterator[list[Any]]:
    """Give calls that one thread of the service is at, one after the other.

    Several, so that the last is not through when a machine that pauses comes to look.
    """
    channel = Channel(service.target, ())
    try:
        grpc.channel_ready_future(channel.raw).result(20)
        wrong = users_pb2.LoginRequest(email="admin@localhost", password="wrong password")
        calls: list[Any] = [channel.users.Login.future(wrong) for _ in range(count)]
        service.computes()
        yield calls
    finally:
        channel.close()


@_SQLITE
def test_calls_in_flight_finish(tmp_path: Path, database_url: str) -> None:
    """Calls that run when SIGTERM comes get their own answers, not that of a broken connection."""
    with (
        served(tmp_path, database_url, BCRYPT_COST="15", SHUTDOWN_GRACE="60") as service,
        _slow_logins(service, 3) as calls,
    ):
        assert not calls[-1].done()
        assert service.end(seconds=60) == ExitCode.OK
        assert [call.code() for call in calls] == [grpc.StatusCode.UNAUTHENTICATED] * 3


@_SQLITE
def test_calls_in_flight_do_not_outlast_the_grace(tmp_path: Path, database_url: str) -> None:
    """A call that takes longer than the grace is ended with it, and the exit is still 0."""
    with (
        served(tmp_path, database_url, BCRYPT_COST="15", SHUTDOWN_GRACE="0.5") as service,
        _slow_logins(service, 4) as calls,
    ):
        began = time.monotonic()
        assert service.end() == ExitCode.OK
        assert time.monotonic() - began < 8
        assert calls[-1].code() != grpc.StatusCode.UNAUTHENTICATED


@_SQLITE
def test_second_signal_does_not_wait(tmp_path: Path, database_url: str) -> None:
    """A second signal ends the process at once with its own exit code."""
    with (
        served(tmp_path, database_url, BCRYPT_COST="16", SHUTDOWN_GRACE="60") as service,
        _slow_logins(service, 4),
    ):
        service.running.send_signal(signal.SIGINT)
        service.tells("draining")
        time.sleep(SAME_SIGNAL_SECONDS + 0.2)
        began = time.monotonic()
        assert service.end(signal.SIGINT) == ExitCode.INTERRUPTED
        assert time.monotonic() - began < 15


@_SQLITE
@pytest.mark.parametrize("workers", ["1", "2"])
def test_signal_that_comes_twice_at_once_is_one(tmp_path: Path, database_url: str, workers: str) -> None:
    """A sender that signals the process and then its group at once gets the orderly end and a 0."""
    with served(tmp_path, database_url, "--workers", workers, SHUTDOWN_GRACE="60") as service:
        for pid in service.workers():
            os.kill(pid, signal.SIGSTOP)  # so that the second signal finds the parent
        service.running.send_signal(signal.SIGTERM)
        service.tells("draining")
        service.running.send_signal(signal.SIGINT)
        for pid in service.workers():
            os.kill(pid, signal.SIGCONT)
        assert service.running.wait(30) == ExitCode.OK
        assert "ended without waiting" not in service.log


@_SQLITE
def test_batched_writes_are_flushed_at_the_end(tmp_path: Path, database_url: str) -> None:
    """Uses of a key that were only counted in memory are in the database after SIGTERM."""
    with served(tmp_path, database_url, API_KEY_USAGE_INTERVAL="3600") as service:
        channel = Channel(service.target, (("x-api-key", first_key(service)),))
        for _ in range(3):
            channel.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest())
        channel.close()
        assert service.end() == ExitCode.OK
    database = Database.open(database_url)
    with database.unit_of_work() as uow:
        (row,) = uow.api_keys.page("-", None, 10, show_revoked=True)
        assert row["use_count"] == 3
    database.close()


@_SQLITE
def test_sigterm_while_starting_ends_it(tmp_path: Path, database_url: str) -> None:
    """A process that is told to end before it serves does so without a traceback."""
    service = Served(tmp_path, database_url)
    service.start()
    service.tells("schema upgraded")
    time.sleep(0.15)
    code = service.end()
    assert code in (ExitCode.OK, -signal.SIGTERM)
    assert "Traceback" not in service.log
    assert service.out


@_SQLITE
@pytest.mark.parametrize("workers", ["1", "2"])
def test_second_start_on_the_address_is_refused(tmp_path: Path, database_url: str, workers: str) -> None:
    """A second start fails with one clear line and its exit code, and the first goes on."""
    with served(tmp_path, database_url) as service:
        words = ["serve", "--address", service.target, "--workers", workers]
        second = run(*words, folder=tmp_path)
        assert second.returncode == ExitCode.ADDRESS_IN_USE
        assert second.stdout == ""
        assert f"address {service.target} is in use" in second.stderr
        assert second.stderr.count("\n") == 1
        assert not (tmp_path / "morag.db").exists()
        assert service.status() == SERVING


@_SERVERS
def test_missing_secret_refuses_to_start(tmp_path: Path, empty_url: str) -> None:
    """Beside SQLite, a start without secrets names them, and leaves the database alone."""
    result = run("serve", "--address", "127.0.0.1:0", folder=tmp_path, DATABASE_URL=empty_url)
    assert result.returncode == ExitCode.CONFIGURATION
    assert "MORAG_SECRET_KEY" in result.stderr
    assert "MORAG_CREDENTIAL_KEYS" in result.stderr
    assert "Traceback" not in result.stderr
    status = run("db", "status", folder=tmp_path, DATABASE_URL=empty_url)
    assert "EMPTY" in status.stdout


@pytest.mark.parametrize(
    ("variables", "code", "told"),
    [
        ({"DATABASE_URL": "sqlite:////no/such/folder/x.db"}, ExitCode.CONFIGURATION, "/no/such/folder"),
        ({"GRPC_ADDRESS": "nonsense"}, ExitCode.CONFIGURATION, "MORAG_GRPC_ADDRESS is 'nonsense'"),
        ({"WORKERS": "none"}, ExitCode.CONFIGURATION, "MORAG_WORKERS is 'none'"),
        (
            {"GRPC_ADDRESS": "192.0.2.1:50051", "ALLOW_PLAINTEXT": "true"},
            ExitCode.ADDRESS_IN_USE,
            "no network interface",
        ),
    ],
)
def test_bad_setting_refuses_to_start(
    tmp_path: Path, variables: dict[str, str], code: ExitCode, told: str
) -> None:
    """What is set wrong is one clear line and an exit code, not a traceback."""
    result = run("serve", folder=tmp_path, **variables)
    assert result.returncode == code
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_schema_is_left_alone_when_told(tmp_path: Path, empty_url: str) -> None:
    """With --no-migrate an empty database is refused with the command that helps."""
    service = Served(tmp_path, empty_url, "--no-migrate")
    service.start()
    assert service.running.wait(30) == ExitCode.SCHEMA
    assert "db upgrade" in service.log
    assert service.out == ""


@_SQLITE
def test_secrets_beside_the_file_are_for_the_owner_alone(tmp_path: Path, database_url: str) -> None:
    """The files that the first start makes beside a SQLite database have mode 0600."""
    with served(tmp_path, database_url):
        folder = Path(database_url.removeprefix("sqlite:///")).parent
        made = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.glob("*key*")}
    assert made == {"morag.db.secret-key": "0o600", "morag.db.credential-keys": "0o600"}


@_SERVERS
def test_outage_is_told_and_survived(tmp_path: Path, backend: Backend, database_url: str) -> None:
    """While the database is away readiness and calls say so within seconds, and recover by themselves."""
    assert isinstance(backend, ServerDatabases)
    server = backend.server
    with served(tmp_path, database_url, DATABASE_STATEMENT_TIMEOUT="3") as service:
        channel = Channel(service.target, (("x-api-key", first_key(service)),))
        me = users_pb2.GetUserRequest(id="me")
        for leave, come_back in ((server.pause, server.resume), (server.stop, server.start)):
            channel.users.GetUser(me)
            leave()
            try:
                service.until("readiness", NOT_SERVING, 10)
                assert service.status("moragmeta.v1.JobService") == NOT_SERVING
                assert service.status("liveness") == SERVING
                with pytest.raises(grpc.RpcError) as caught:
                    channel.users.GetUser(me, timeout=20)
                error: Any = caught.value
                assert error.code() == grpc.StatusCode.UNAVAILABLE
            finally:
                come_back()
            service.until("readiness", SERVING, 30)
            channel.users.GetUser(me)
        channel.close()
        assert service.end() == ExitCode.OK


@_SERVERS
def test_sigterm_while_the_database_is_paused_ends_in_time(
    tmp_path: Path, backend: Backend, database_url: str
) -> None:
    """A database that answers nothing does not keep the process from ending with 0."""
    assert isinstance(backend, ServerDatabases)
    with served(tmp_path, database_url, SHUTDOWN_GRACE="2", DATABASE_STATEMENT_TIMEOUT="2") as service:
        first_key(service)
        backend.server.pause()
        try:
            service.until("readiness", NOT_SERVING, 10)
            began = time.monotonic()
            assert service.end() == ExitCode.OK
            assert time.monotonic() - began < 15
        finally:
            backend.server.resume()
