"""The lock of the log's one row: whoever holds it and falls silent loses it, and others number events."""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
import time
from collections.abc import Callable

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.db.engine import IDLE_SECONDS, LOCK_WAIT_SECONDS
from morag_meta.db.schema import job_events, job_floors, job_log, jobs, users
from morag_meta.jobs.actions import create_job
from morag_meta.jobs.listing import Filter
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import jobs_pb2_grpc
from tests.backends.databases import chosen_kinds
from tests.jobs.barrier import barrier, stop, who_stands
from tests.jobs.written import Shelf
from tests.processes import ServerProcess

DAY = dt.timedelta(days=1)
PROMISED, ALLOWED = 2.0, 2.0  # seconds until others number again, and what a busy machine may add
_BESIDE = pytest.mark.parametrize(  # SQLite has one writer, who holds the file
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)
Holding = Callable[[UnitOfWork, str], object]


def _purge(uow: UnitOfWork, owner: str) -> object:
    return uow.job_removals.purge(Filter(owner), uow.queue.now() + DAY)


_HOLDINGS: dict[str, Holding] = {
    "numbering": lambda uow, _: uow.log.number(),
    "purging": _purge,
    "trimming": lambda uow, _: uow.job_removals.expire_events(DAY),
    "deleting": lambda uow, owner: uow.jobs.delete_all(owner),
}
_EACH = pytest.mark.parametrize("holding", _HOLDINGS.values(), ids=_HOLDINGS)


def _advance(shelf: Shelf, position: int) -> None:
    shelf.do(lambda uow: uow.run(sa.update(job_log).values(position=position)))


@pytest.fixture
def owner(shelf: Shelf) -> str:
    """Give an owner with old jobs, of which one has events that have no position, and so has another's."""
    owner = shelf.owner()
    for job_id in shelf.write(owner, *[{"event_number": 3}] * 4, events=3):
        shelf.age_events(job_id, [9 * DAY] * 3)
    _advance(shelf, 12)
    shelf.write(owner, {}, first=None)
    shelf.write(shelf.owner(), {"state": "PENDING"}, first=None)
    return owner


@_BESIDE
@_EACH
def test_whoever_holds_the_row_in_silence_loses_it(shelf: Shelf, owner: str, holding: Holding) -> None:
    """A transaction that numbers or removes and then is silent is ended, undone, within two seconds."""
    there = shelf.job_ids()
    with shelf.database.unit_of_work() as silent:
        began = time.monotonic()
        holding(silent, owner)
        started = time.monotonic()
        while shelf.do(lambda uow: uow.log.number()) is None:
            assert time.monotonic() - started < PROMISED + ALLOWED
            time.sleep(0.05)

        assert time.monotonic() - began > 0.9  # until then it had the row
    assert shelf.job_ids() == there
    assert shelf.log() == (16, 0)


@_BESIDE
def test_removing_holds_nobody_up_before_it_has_the_row(shelf: Shelf, owner: str) -> None:
    """Whoever stops when it has removed events, and has not come to the log, keeps nobody from numbering."""
    numbered = (job_events.c.owner_id == owner, job_events.c.position.is_not(None))
    with shelf.database.unit_of_work() as removing:
        assert removing.connection.execute(sa.delete(job_events).where(*numbered)).rowcount == 12
        started = time.monotonic()
        assert shelf.do(lambda uow: uow.log.number()) == 4
        assert time.monotonic() - started < LOCK_WAIT_SECONDS
    assert shelf.log() == (16, 0)


@_EACH
def test_the_sessions_that_held_the_row_are_as_patient_as_before(
    shelf: Shelf, owner: str, holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit ends with its transaction, committed or not: no later one is ended for its silence."""
    asked = {
        "mariadb": "SELECT @@session.idle_transaction_timeout",
        "postgresql": "SHOW idle_in_transaction_session_timeout",
        "sqlite": "SELECT 1",
    }[shelf.database.dialect]

    def limit(uow: UnitOfWork) -> object:
        return uow.connection.exec_driver_sql(asked).scalar()

    monkeypatch.setattr("morag_meta.jobs.log._IDLE_SECONDS", IDLE_SECONDS - 2)  # longer than a machine pauses
    before = shelf.do(limit)
    with shelf.database.unit_of_work() as uow:
        holding(uow, owner)
        uow.commit()
        assert limit(uow) == before
    with shelf.database.unit_of_work() as uow:
        holding(uow, owner)
    assert [shelf.do(limit) for _ in range(3)] == [before] * 3


@pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind == "mariadb"], indirect=True, scope="session"
)
def test_a_session_that_cannot_be_made_patient_again_is_left(shelf: Shelf, owner: str) -> None:
    """Where the connection breaks just after COMMIT, what was committed counts, and nobody uses it again."""
    del owner
    with shelf.database.unit_of_work() as uow:
        (session,) = uow.connection.exec_driver_sql("SELECT connection_id()").one()
        uow.after_commit(lambda: shelf.do(lambda one: one.connection.exec_driver_sql(f"KILL {session}")))
        assert uow.log.number() == 4
        uow.commit()
        assert uow.broken
    assert shelf.log() == (16, 0)


@pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind == "mariadb"], indirect=True, scope="session"
)
def test_mysql_which_knows_no_such_limit_is_not_asked_for_it(
    shelf: Shelf, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are numbered there all the same."""
    del owner
    monkeypatch.setattr(shelf.database.engine.dialect, "is_mariadb", False)
    said: list[str] = []
    sa.event.listen(shelf.database.engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    assert shelf.do(lambda uow: uow.log.number()) == 4
    assert said
    assert not any("idle" in statement for statement in said)


def _purge_by(server: ServerProcess, key: str, done: list[pb.PurgeJobsResponse]) -> threading.Thread:
    """Have a server purge what has ended, in a thread."""
    end = Timestamp()
    end.FromDatetime(dt.datetime.now(dt.UTC) + DAY)

    def purge() -> None:
        with grpc.insecure_channel(server.target) as channel:
            request = pb.PurgeJobsRequest(end_time_before=end, request_id="purge")
            stub = jobs_pb2_grpc.JobServiceStub(channel)
            done.append(stub.PurgeJobs(request, metadata=(("x-api-key", key),), timeout=60))

    thread = threading.Thread(target=purge)
    thread.start()
    return thread


@_BESIDE
def test_a_process_that_is_stopped_amid_a_purge_loses_the_log(
    server: tuple[ServerProcess, str], shelf: Shelf
) -> None:
    """Stopped while it holds the log's row, others number again within two seconds; it purges afterwards."""
    process, key = server
    (owner,) = shelf.column(sa.select(users.c.id))
    shelf.write(owner, {}, {}, first=1)
    assert shelf.purge(owner).jobs == 2  # so that there is a floor to be raised, and to stand before
    gone = shelf.write(owner, {}, {}, {}, first=11)
    _advance(shelf, 16)
    done: list[pb.PurgeJobsResponse] = []
    with barrier(shelf.database, sa.select(job_floors)):
        thread = _purge_by(process, key, done)
        assert who_stands(shelf.database, [process]) is process
        assert shelf.do(lambda uow: uow.log.number()) is None
        stop(process, signal.SIGSTOP)
    started = time.monotonic()
    job_id = shelf.do(lambda uow: create_job(uow, owner, kind="X")["id"])
    while shelf.do(lambda uow: uow.log.number()) is None:
        assert time.monotonic() - started < PROMISED + ALLOWED
        time.sleep(0.02)
    place = sa.select(job_events.c.position).where(job_events.c.job_id == job_id)
    assert shelf.column(place) == [17]
    assert set(gone) < shelf.job_ids()

    os.kill(process.process.pid, signal.SIGCONT)
    thread.join(60)
    assert [purged.purged_jobs for purged in done] == [3]
    assert shelf.column(sa.select(jobs.c.id)) == [job_id]
