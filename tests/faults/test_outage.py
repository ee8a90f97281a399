"""The database is stopped, killed, frozen or full: clear answers in time, and served again by itself."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg2
import pymysql
import pytest
import sqlalchemy as sa

from moragmeta.v1 import jobs_pb2
from tests.backends.databases import ServerDatabases
from tests.faults.conftest import MOST_CONNECTIONS
from tests.faults.outage import (
    at_once,
    new_job,
    outcome,
    read,
    read_error,
    until_made,
    until_served,
    write,
)
from tests.service import Service, User

STATEMENT_SECONDS = 1.0  # which no statement comes near to, and a machine that pauses seldom does
WATCHDOG_SECONDS = STATEMENT_SECONDS + 2.0 + 0.5  # its limit, and how often it looks
CALLS = 12  # more than there are connections


@pytest.fixture(scope="module")
def service(frail: ServerDatabases) -> Iterator[Service]:
    """Serve on a server that may go away, with short limits."""
    url = frail.new_url()
    started = Service(
        url, frail.name, database_statement_timeout=STATEMENT_SECONDS, database_connect_timeout=2
    )
    yield started
    started.close()
    frail.drop(url)


@pytest.fixture
def user(service: Service) -> User:
    """Give a user who has called already."""
    made = until_made(service)
    until_served(made)
    return made


def _end(frail: ServerDatabases, way: str) -> None:
    getattr(frail.server, way)()


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_server_that_went_is_told_and_its_return_is_noticed(
    frail: ServerDatabases, service: Service, user: User, way: str
) -> None:
    """Without a server every call is UNAVAILABLE at once with a delay; with it back, all are served."""
    name = f"during {way}"
    _end(frail, way)
    began = time.monotonic()
    answers = at_once(CALLS, lambda number: read(user) if number % 2 else write(user, name))
    assert time.monotonic() - began < 10
    assert {code for code, _, _ in answers} == {"UNAVAILABLE"}
    assert all(reason in ("DATABASE_UNAVAILABLE", "COMMIT_UNKNOWN") for _, reason, _ in answers)
    assert all(delay > 0 for _, reason, delay in answers if reason == "DATABASE_UNAVAILABLE")
    frail.server.start()
    until_served(user)
    with service.database.unit_of_work() as uow:
        assert uow.servers.page(user.id, None, 9, kinds=[], active=None, name_contains=name) == []


def test_an_outage_is_never_an_absence(frail: ServerDatabases, user: User) -> None:
    """While the database is away nothing is NOT_FOUND and nobody UNAUTHENTICATED, known or not."""
    unknown = User(user.id, user.email, user.role, "morag_" + "A" * 43, "", user.channel)
    frail.server.stop()
    try:
        time.sleep(5.5)  # what was cached of the caller is no longer believed
        metadata = (("x-api-key", unknown.key),)
        request = jobs_pb2.GetJobRequest(id=user.id)
        channel: Any = user.channel.raw
        call = channel.unary_unary("/moragmeta.v1.JobService/GetJob")
        for credential in (metadata, (("x-api-key", user.key),)):
            code, reason, _ = outcome(
                lambda credential=credential: call(  # type: ignore[misc]
                    request.SerializeToString(), metadata=credential, timeout=10
                )
            )
            assert (code, reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
    finally:
        frail.server.start()
    until_served(user)


def test_watchers_of_a_stopped_database_are_told_and_miss_nothing(
    frail: ServerDatabases, service: Service, user: User
) -> None:
    """Streams end UNAVAILABLE with the resume point, and who resumes sees what happened meanwhile, once."""
    job_id = new_job(user)
    stream = user.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id))
    assert next(stream).event.sequence == 1
    frail.server.stop()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert read_error(caught.value)[:2] == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
    finally:
        frail.server.start()
    until_served(user)
    jobs = user.channel.jobs
    jobs.StartJob(jobs_pb2.StartJobRequest(id=job_id))
    jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job_id))
    resumed = jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id, after_sequence=1))
    assert [frame.event.sequence for frame in resumed if frame.HasField("event")] == [2, 3]


def test_a_frozen_server_holds_no_thread_for_good(
    frail: ServerDatabases, service: Service, user: User
) -> None:
    """Calls to a frozen server are cut loose in time, and all threads serve again when it goes on."""
    threads = set(threading.enumerate())
    frail.server.pause()
    try:
        began = time.monotonic()
        answers = at_once(CALLS, lambda number: read(user) if number % 2 else write(user, f"frozen {number}"))
        took = time.monotonic() - began
    finally:
        frail.server.resume()
    assert {code for code, _, _ in answers} == {"UNAVAILABLE"}
    # Each of the threads is cut once in a statement and once in connecting; what waited comes after that.
    assert took < 3 * WATCHDOG_SECONDS + 5
    until_served(user, CALLS)
    grown = [t.name for t in threading.enumerate() if t not in threads and t.name.startswith("database")]
    assert len(grown) <= service.settings.database_pool_size + service.settings.database_max_overflow


def test_a_write_to_a_frozen_server_is_settled_by_its_request_id(
    frail: ServerDatabases, service: Service, user: User
) -> None:
    """What was written when the server froze happened once or not at all, and the repeat makes it once."""
    frail.server.pause()
    try:
        code, _, _ = outcome(lambda: write(user, "frozen", "frozen"))
    finally:
        frail.server.resume()
    assert code == "UNAVAILABLE"
    until_served(user)
    write(user, "frozen", "frozen")
    with service.database.unit_of_work() as uow:
        assert len(uow.servers.page(user.id, None, 9, kinds=[], active=None, name_contains="frozen")) == 1


@contextlib.contextmanager
def _all_connections_taken(frail: ServerDatabases) -> Iterator[None]:
    """Take every connection that the server gives, those for its administrator among them."""
    url = sa.make_url(frail.server.url)
    taken: list[Any] = []
    try:
        for _ in range(MOST_CONNECTIONS + 5):
            with contextlib.suppress(psycopg2.OperationalError, pymysql.err.OperationalError):
                taken.append(_connect(frail, url))
        yield
    finally:
        for connection in taken:
            connection.close()


def _connect(frail: ServerDatabases, url: sa.URL) -> Any:
    if frail.name == "postgresql":
        return psycopg2.connect(url.render_as_string(hide_password=False), connect_timeout=5)
    return pymysql.connect(
        host=url.host, port=url.port or 0, user=url.username, password=url.password or "", connect_timeout=5
    )


def test_used_up_connections_are_told_and_hurt_nobody(
    frail: ServerDatabases, service: Service, user: User
) -> None:
    """When the database takes no more connections calls are UNAVAILABLE; when it does, they are served.

    What the service does for itself may have connected before, and its lanes then do with that.
    """
    told = False
    for _ in range(5):
        frail.server.stop()  # so that the service has to connect anew
        frail.server.start()
        with _all_connections_taken(frail):
            answers = at_once(CALLS, lambda number: write(user, f"taken {number}"))
            assert {code for code, _, _ in answers} <= {"UNAVAILABLE", "OK"}
        until_served(user, CALLS)
        told = ("UNAVAILABLE", "DATABASE_UNAVAILABLE", 1.0) in answers
        if told:
            break
    assert told
