"""What readiness says while the database is away, and when it is back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from morag_meta.db.engine import DatabaseOptions
from morag_meta.health import readiness
from morag_meta.health.probe import Probe
from morag_meta.health.question import Question
from morag_meta.health.readiness import STEADY_SECONDS
from tests.backends.daemon import Daemon
from tests.backends.databases import Backend, ServerDatabases, chosen_kinds
from tests.backends.mariadb import MariadbServer
from tests.backends.postgresql import PostgresqlServer

_SERVERS = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)


TOLD_SECONDS = 5.0 + 3.0  # of which the latter are a busy machine's


class Watcher:
    """A probe whose changes are kept with the time at which they were told."""

    def __init__(self, url: str) -> None:
        self.probe = Probe(DatabaseOptions(url=url))
        self.changes: list[tuple[float, bool]] = []
        self.probe.subscribe(lambda: self.changes.append((time.monotonic(), self.probe.ready)))

    async def until(self, ready: bool, seconds: float) -> float:
        """Wait for an answer and return how long it took."""
        began = time.monotonic()
        while self.probe.ready is not ready:
            assert time.monotonic() - began < seconds, f"not {ready=} within {seconds} s: {self.changes}"
            await asyncio.sleep(0.02)
        return time.monotonic() - began


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watcher]:
    """Probe a database for the length of a block."""
    watcher = Watcher(url)
    await watcher.probe.start()
    try:
        assert watcher.probe.ready
        watcher.changes.clear()
        yield watcher
    finally:
        await watcher.probe.stop()


@pytest.fixture
def server(backend: Backend) -> Daemon:
    """Give the server of the database, to be taken away."""
    assert isinstance(backend, ServerDatabases)
    return backend.server


def _threads() -> int:
    return sum(thread.name == "health-probe" for thread in threading.enumerate())


@_SERVERS
async def test_a_paused_server_is_told_and_so_is_its_return(server: Daemon, database_url: str) -> None:
    """A frozen server is NOT ready within 5 s, and again by itself, each told once, without a flap."""
    async with watching(database_url) as watcher:
        try:
            server.pause()
            await watcher.until(ready=False, seconds=TOLD_SECONDS)
            await asyncio.sleep(3)
        finally:
            server.resume()
        await watcher.until(ready=True, seconds=STEADY_SECONDS + 3)
        await asyncio.sleep(2.5)
        assert [ready for _, ready in watcher.changes] == [False, True]


@_SERVERS
@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_server_that_ended_is_told_and_so_is_its_return(
    server: Daemon, database_url: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that refuses is NOT ready within 5 s, and again by itself when it is started."""
    monkeypatch.setattr(readiness, "STEADY_SECONDS", 1.0)
    async with watching(database_url) as watcher:
        try:
            getattr(server, way)()
            await watcher.until(ready=False, seconds=TOLD_SECONDS)
        finally:
            server.start()
        await watcher.until(ready=True, seconds=20)
        assert [ready for _, ready in watcher.changes] == [False, True]


@_SERVERS
async def test_a_killed_connection_is_no_outage(
    server: MariadbServer | PostgresqlServer, database_url: str
) -> None:
    """When the server ends the probe's connection, the probe takes a new one and readiness stays."""
    async with watching(database_url) as watcher:
        for _ in range(3):
            _kill_connections(server, database_url.rpartition("/")[2])
            await asyncio.sleep(1.2)
        assert watcher.changes == []


@_SERVERS
async def test_a_hung_probe_leaves_no_thread(server: Daemon, database_url: str) -> None:
    """However long the database hangs there is one probe thread, and none after stop."""
    others = _threads()
    async with watching(database_url) as watcher:
        server.pause()
        try:
            await watcher.until(ready=False, seconds=TOLD_SECONDS)
            await asyncio.sleep(2)
            assert _threads() == others + 1
            await watcher.probe.stop()
            await _until_threads(others)
        finally:
            server.resume()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_missing_sqlite_file_is_told(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite file that is moved away makes NOT ready, and ready again when it is back."""
    monkeypatch.setattr(readiness, "STEADY_SECONDS", 1.0)
    file = Path(database_url.removeprefix("sqlite:///"))
    away = file.with_name("away")
    away.touch()
    away.rename(file)
    async with watching(database_url) as watcher:
        await asyncio.to_thread(file.rename, away)
        await watcher.until(ready=False, seconds=TOLD_SECONDS)
        await asyncio.to_thread(away.rename, file)
        await watcher.until(ready=True, seconds=20)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_probe_makes_no_sqlite_file(database_url: str) -> None:
    """Asking a database that does not exist fails and does not create it."""
    question = Question(DatabaseOptions(url=database_url))
    with pytest.raises(FileNotFoundError):
        question.ask()
    assert not Path(database_url.removeprefix("sqlite:///")).exists()


async def _until_threads(number: int) -> None:
    for _ in range(200):
        if _threads() == number:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the probe's thread hangs for good")


def _kill_connections(server: MariadbServer | PostgresqlServer, name: str) -> None:
    if isinstance(server, PostgresqlServer):
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        return
    query = f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"
    for (connection,) in server.execute(query):
        server.execute(f"KILL {connection}", missing=1094)
