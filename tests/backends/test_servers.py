"""The throwaway servers keep what other tests rest on: data over a crash, silence when frozen."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.backends.daemon import Daemon
from tests.backends.databases import SERVERS, Backend, ServerDatabases, chosen_kinds

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg2", "mariadb": "mariadb+pymysql"}


def _engine(url: str) -> sa.Engine:
    scheme, _, rest = url.partition("://")
    return sa.create_engine(f"{_DRIVERS[scheme]}://{rest}", poolclass=sa.NullPool)


@pytest.fixture(params=[kind for kind in chosen_kinds() if kind in SERVERS])
def server(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """Start a server that the test may stop, freeze and kill."""
    with SERVERS[request.param]() as started:
        yield started


def test_fresh_database_is_reached_by_its_url(backend: Backend, empty_url: str) -> None:
    """A new URL leads to an empty database of the kind that the backend names."""
    assert empty_url.startswith(f"{backend.name}://")
    assert sa.inspect(_engine(empty_url)).get_table_names() == []


def test_dropping_does_not_wait_for_open_transactions(backend: Backend) -> None:
    """A database goes away at once although a transaction in it was left open."""
    if not isinstance(backend, ServerDatabases):
        return
    url = backend.new_url()
    with _engine(url).connect() as left_open:
        left_open.execute(sa.text("CREATE TABLE held (id INTEGER)"))
        left_open.execute(sa.text("INSERT INTO held VALUES (1)"))
        begun = time.monotonic()
        backend.drop(url)
        assert time.monotonic() - begun < 10
        left_open.invalidate()


def test_committed_rows_survive_a_kill(server: Daemon) -> None:
    """What was committed before SIGKILL is there after the next start, on the same URL."""
    engine = _engine(server.create_database())
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (id INTEGER)"))
        connection.execute(sa.text("INSERT INTO kept VALUES (7)"))
    server.kill()
    server.start()
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT id FROM kept")).scalars().all() == [7]


def test_a_server_keeps_its_temporary_files_to_itself(server: Daemon) -> None:
    """MariaDB removes other servers' temporary tables when it starts, unless each has a folder of its own."""
    if server.dialect != "mariadb":
        return
    with _engine(server.create_database()).connect() as connection:
        place = Path(connection.scalar(sa.text("SELECT @@tmpdir")))
    assert place.is_relative_to(server.folder)
    assert not place.is_relative_to(server.folder / "data")


def test_frozen_server_is_silent_until_resumed(server: Daemon) -> None:
    """A paused server answers nobody, and the same connection works once it goes on."""
    engine = _engine(server.url)
    address = engine.url.render_as_string(hide_password=False)
    script = f"import sqlalchemy as sa; sa.create_engine({address!r}).connect()"
    with engine.connect() as connection:
        server.pause()
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", script], timeout=3, check=False, capture_output=True)
        server.resume()
        assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1


@pytest.mark.parametrize("kind", [kind for kind in chosen_kinds() if kind in SERVERS])
def test_server_ends_with_the_process_that_started_it(kind: str) -> None:
    """A server does not outlive a test run that was killed."""
    maker = SERVERS[kind]
    code = textwrap.dedent(f"""
        import os, signal
        from {maker.__module__} import {maker.__name__} as Server
        server = Server()
        server.start()
        print(server.pid, server.folder, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    root = Path(__file__).parents[2]
    started = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    pid, folder = started.stdout.split()
    status = Path("/proc", pid, "stat")
    limit = time.monotonic() + 20
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < limit
        time.sleep(0.1)
    subprocess.run(["rm", "-rf", folder], check=True)
