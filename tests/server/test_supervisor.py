"""Several processes on one port: together started, kept alive, and ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from morag_meta.exits import ExitCode
from morag_meta.server.process import SAME_SIGNAL_SECONDS
from moragmeta.v1 import users_pb2
from tests.server.processes import Served, lives, served
from tests.server.test_process import first_key
from tests.service import Channel

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def _until(condition: Callable[[], bool], seconds: float, service: Served) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, service.log
        time.sleep(0.05)


def _serving(service: Served) -> int:
    return sum(event["event"] == "serving" for event in service.events)


def _all_serve(service: Served, workers: int) -> None:
    _until(lambda: _serving(service) >= workers, 30, service)


def test_workers_share_port_secrets_and_schema(tmp_path: Path, database_url: str) -> None:
    """Two workers serve one port, one first key is printed, and whichever worker answers knows it."""
    with served(tmp_path, database_url, "--workers", "2") as service:
        key = first_key(service)
        _all_serve(service, 2)
        assert len(service.workers()) == 2
        for _ in range(12):  # each connection reaches either of them
            channel = Channel(service.target, (("x-api-key", key),))
            channel.users.GetUser(users_pb2.GetUserRequest(id="me"))
            channel.close()
        assert service.end() == ExitCode.OK
        assert service.out == ""


def test_sigterm_ends_parent_and_workers(tmp_path: Path, database_url: str) -> None:
    """The parent passes SIGTERM on, waits for the drains, and exits with 0."""
    with served(tmp_path, database_url, "--workers", "2") as service:
        _all_serve(service, 2)
        workers = service.workers()
        assert service.end() == ExitCode.OK
        assert not any(map(lives, workers))
        stopped = [event for event in service.events if event["event"] == "stopped"]
        assert {event.get("pid") for event in stopped} == {*workers, None}


def test_signals_to_the_whole_group_end_in_order(tmp_path: Path, database_url: str) -> None:
    """A service manager that signals parent and workers alike gets the same orderly end."""
    with served(tmp_path, database_url, "--workers", "2") as service:
        _all_serve(service, 2)
        workers = service.workers()
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        assert service.end() == ExitCode.OK
        _until(lambda: not any(map(lives, workers)), 20, service)


def test_worker_that_dies_is_started_again(tmp_path: Path, database_url: str) -> None:
    """A killed worker is replaced, and the port is served all the while."""
    with served(tmp_path, database_url, "--workers", "2") as service:
        _all_serve(service, 2)
        first = service.workers()
        os.kill(first[0], signal.SIGKILL)
        _until(lambda: _serving(service) >= 3, 30, service)
        now = service.workers()
        assert len(now) == 2
        assert first[0] not in now
        assert first[1] in now
        (ended,) = [event for event in service.events if event["event"] == "worker ended"]
        assert ended["code"] == -signal.SIGKILL
        service.ready()
        assert service.end() == ExitCode.OK


def test_workers_end_with_a_killed_parent(tmp_path: Path, database_url: str) -> None:
    """When the parent is killed the workers drain and end, and the address is free again."""
    with served(tmp_path, database_url, "--workers", "2") as service:
        _all_serve(service, 2)
        workers = service.workers()
        service.running.kill()
        service.running.wait()
        _until(lambda: not any(map(lives, workers)), 30, service)
        with served(tmp_path, database_url, port=service.port) as again:
            assert again.end() == ExitCode.OK


def test_second_signal_kills_the_workers(tmp_path: Path, database_url: str) -> None:
    """A second signal to the parent does not wait for a drain."""
    with served(tmp_path, database_url, "--workers", "2", SHUTDOWN_GRACE="60") as service:
        _all_serve(service, 2)
        workers = service.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)  # nothing else keeps them from draining
        service.running.send_signal(signal.SIGTERM)
        service.tells("draining")
        time.sleep(SAME_SIGNAL_SECONDS + 0.2)
        assert service.running.poll() is None
        assert service.end() == ExitCode.INTERRUPTED
        assert not any(map(lives, workers))


def test_workers_that_do_not_drain_are_killed(tmp_path: Path, database_url: str) -> None:
    """A worker that hangs beyond the grace is killed, and the exit code says so."""
    with served(tmp_path, database_url, "--workers", "2", SHUTDOWN_GRACE="0") as service:
        _all_serve(service, 2)
        workers = service.workers()
        os.kill(workers[0], signal.SIGSTOP)
        assert service.end() == ExitCode.FAILURE
        assert not any(map(lives, workers))


def test_port_may_be_chosen_by_the_system(tmp_path: Path, database_url: str) -> None:
    """With port 0 all workers listen on the one port that the parent was given."""
    service = Served(tmp_path, database_url, "--workers", "2", port=0)
    service.start()
    _all_serve(service, 2)
    ports = {event["port"] for event in service.events if event["event"] == "serving"}
    assert len(ports) == 1
    assert ports != {0}
    assert service.end() == ExitCode.OK
    assert "admin API key" in service.out


def test_what_is_wrong_for_good_is_not_tried_again(tmp_path: Path, database_url: str) -> None:
    """A worker that finds the settings unusable ends the service with that exit code."""
    with served(tmp_path, database_url, "--workers", "2") as service:
        _all_serve(service, 2)
        secret = Path(database_url.removeprefix("sqlite:///")).with_name("morag.db.secret-key")
        secret.write_text("spoilt")
        os.kill(service.workers()[0], signal.SIGKILL)
        assert service.running.wait(30) == ExitCode.CONFIGURATION
        assert "Traceback" not in service.log
