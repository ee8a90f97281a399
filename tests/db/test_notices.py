"""Notices between processes: who hears what, and that no server and no number of files stops them."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from morag_meta.db.engine import DatabaseOptions
from morag_meta.db.notices import MOST_UNSENT, Notices
from tests.backends.daemon import free_port
from tests.backends.databases import chosen_kinds
from tests.backends.postgresql import PostgresqlServer

pytestmark = pytest.mark.parametrize(
    "server", [kind for kind in chosen_kinds() if kind == "postgresql"], indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[PostgresqlServer]:
    """Give a PostgreSQL that these tests may freeze."""
    with PostgresqlServer() as started:
        yield started


class Heard(set[str]):
    """Topics that were heard."""

    def wait_for(self, topic: str, say: Notices, seconds: float = 15) -> None:
        """Have a topic told until it is heard, as a notice may be lost while connections are made."""
        end = time.monotonic() + seconds
        while topic not in self:
            assert time.monotonic() < end, f"never heard of {topic}, only of {self}"
            say.send([topic])
            time.sleep(0.05)


@contextmanager
def _running(url: str, heard: Heard, prefix: str = "", limit: float = 0.1) -> Iterator[Notices]:
    notices = Notices(DatabaseOptions(url=url, statement_timeout=limit), heard.update, prefix)
    notices.start()
    try:
        yield notices
    finally:
        notices.stop()


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "notices"}


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_topics_with_the_prefix_are_heard_by_others_alone(server: PostgresqlServer) -> None:
    """What one process tells another one hears, without what nobody listens for; nothing stays open."""
    before = _descriptors()
    mine, theirs = Heard(), Heard()
    with _running(server.url, mine, "jobs/") as here, _running(server.url, theirs, "jobs/"):
        theirs.wait_for("jobs/1", here)
        here.send(["auth_epoch:7", "jobs/2"])
        theirs.wait_for("jobs/3", here)
    assert theirs == {"jobs/1", "jobs/2", "jobs/3"}
    assert mine == set()
    end = time.monotonic() + 5
    while _descriptors() > before:  # a service of other tests in this process may open some for a moment
        assert time.monotonic() < end, "something stays open"
        time.sleep(0.05)
    here.send(["jobs/4"])  # and nobody minds


def test_more_files_than_select_can_count_are_no_matter(server: PostgresqlServer) -> None:
    """A process with more than a thousand open files hears notices too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    heard = Heard()
    try:
        with _running(server.url, Heard()) as here, _running(server.url, heard):
            heard.wait_for("jobs/1", here)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_waits_for_a_connection_is_bounded(server: PostgresqlServer) -> None:
    """While there is no server, the topics that wait do not grow without end."""
    with _running(f"postgresql://nobody@127.0.0.1:{free_port()}/none", Heard()) as notices:
        for number in range(0, 3 * MOST_UNSENT, 100):
            notices.send([f"jobs/{number + each}" for each in range(100)])
            assert len(notices) <= MOST_UNSENT
        assert len(notices) > 0


def test_a_frozen_server_does_not_hold_the_thread(server: PostgresqlServer) -> None:
    """A statement that a frozen server never answers is cut; when it goes on, notices do too."""
    heard = Heard()
    with (
        structlog.testing.capture_logs() as logs,
        _running(server.url, heard) as here,
        _running(server.url, Heard()) as there,
    ):
        heard.wait_for("jobs/1", there)
        server.pause()
        try:
            here.send(["jobs/2"])
            end = time.monotonic() + 10
            while not any(line["event"] == "notices interrupted" for line in logs):
                assert time.monotonic() < end, "still waiting for the frozen server"
                time.sleep(0.05)
        finally:
            server.resume()
        heard.wait_for("jobs/3", there)


def test_stopping_does_not_wait_for_a_frozen_server(server: PostgresqlServer) -> None:
    """Whatever statement is under way on a frozen server, stop() ends the thread."""
    heard = Heard()
    before = _threads()  # a service of other tests in this process has one too
    with _running(server.url, heard, limit=60) as here, _running(server.url, Heard(), limit=60) as there:
        heard.wait_for("jobs/1", there)
        mine = _threads() - before
        assert len(mine) == 2
        server.pause()
        try:
            here.send(["jobs/2"])
            time.sleep(0.2)
            here.stop()
            there.stop()
            assert not any(thread.is_alive() for thread in mine)
        finally:
            server.resume()
