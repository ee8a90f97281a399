"""How often a unit of work goes to the database and back, counted on the way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.engine import DatabaseOptions
from morag_meta.errors import NotFound
from morag_meta.ids import new_id
from morag_meta.jobs import actions
from morag_meta.jobs.actions import Report
from morag_meta.uow import UnitOfWork
from tests.backends.proxy import Proxy
from tests.db.accounts import made, rename


class Trips:
    """Counts what is sent to a database."""

    def __init__(self, database: Database, sent: list[Any]) -> None:
        self.database = database
        self._sent = sent

    async def of(self, way: str, work: Callable[[UnitOfWork], Any], **options: bool) -> int:
        """Run work until every thread has its connection, and then once to count."""
        run = getattr(self.database, way)
        await asyncio.gather(*(run(work, **options) for _ in range(6)))
        self._sent.clear()
        await run(work, **options)
        return len(self._sent)


@contextmanager
def _counting(url: str) -> Iterator[Trips]:
    """Count pieces on the wire to a server, and statements of a SQLite file."""
    if url.startswith("sqlite"):
        opened = Database.open(url)
        sent: list[str] = []
        connect = opened.engine.dialect.connect

        def traced(*arguments: Any, **options: Any) -> Any:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(sent.append)
            return connection

        opened.engine.dialect.connect = traced  # type: ignore[method-assign]
        yield Trips(opened, sent)
        opened.close()
        return
    with Proxy(url) as proxy:
        opened = Database(DatabaseOptions(proxy.url, pool_size=1, max_overflow=0))
        yield Trips(opened, proxy.sent)
        opened.close()


@pytest.fixture
def trips(migrated_url: str) -> Iterator[Trips]:
    """Count."""
    with _counting(migrated_url) as counting:
        yield counting


async def test_a_single_read_is_one_round_trip(trips: Trips) -> None:
    """A read of one statement sends that statement and nothing else: no BEGIN, no ping, no reset."""
    id = made(trips.database)
    for point in (False, True):
        assert await trips.of("read", lambda uow: uow.users.get("-", id), point=point) == 1


async def test_a_read_that_finds_nothing_is_one_round_trip(trips: Trips) -> None:
    """Also an error of the domain leaves nothing to be sent."""

    def missing(uow: UnitOfWork) -> None:
        with pytest.raises(NotFound):
            uow.users.get("-", new_id())

    assert await trips.of("read", missing) == 1


async def test_a_write_adds_begin_and_commit_at_most(trips: Trips) -> None:
    """A write of two statements takes two more trips; on PostgreSQL BEGIN travels with the first."""
    id = made(trips.database)
    count = await trips.of("write", lambda uow: rename(uow, id, "new"))
    assert count == (3 if trips.database.dialect == "postgresql" else 4)


async def test_a_snapshot_takes_no_more_than_it_must(trips: Trips) -> None:
    """A snapshot of two statements adds its beginning and its end."""
    id = made(trips.database)

    def twice(uow: UnitOfWork) -> None:
        uow.users.get("-", id)
        uow.users.get("-", id)

    count = await trips.of("read", twice, snapshot=True)
    assert count == {"postgresql": 3, "mariadb": 5, "sqlite": 4}[trips.database.dialect]


async def test_a_report_of_progress_takes_three_trips_on_postgresql(trips: Trips) -> None:
    """The job's event travels with COMMIT there, and BEGIN with the lock; elsewhere all five go alone."""
    job_id = _started_job(trips.database)
    numbers = itertools.count(1)

    def report(uow: UnitOfWork) -> None:
        actions.report_progress(uow, "-", job_id, Report(1, next(numbers)), percentage=50, phase="reading")

    count = await trips.of("write", report)
    assert count == (3 if trips.database.dialect == "postgresql" else 5)
    with trips.database.unit_of_work() as uow:
        newest = uow.jobs.get("-", job_id)
        events = uow.jobs.events_after("-", job_id, 0, 100)
    assert [event["number"] for event in events] == list(range(1, newest["event_number"] + 1))


@pytest.mark.parametrize(("limits", "more"), [({}, 0), ({"servers": 10**6}, 2)])
async def test_who_has_no_quota_pays_no_trip_for_quotas(
    trips: Trips, limits: dict[str, int], more: int
) -> None:
    """Adding a row takes its insert alone; with a quota two more, which lock it and count."""
    owner = made(trips.database)
    if limits:
        with trips.database.unit_of_work() as uow:
            uow.quotas.set(owner, limits)
            uow.commit()

    def add(uow: UnitOfWork) -> None:
        uow.servers.add(new_id(), owner, name=new_id(), kind="QDRANT", host="h", port=1)

    count = await trips.of("write", add)
    assert count == (2 if trips.database.dialect == "postgresql" else 3) + more


async def test_who_listens_to_sqlalchemy_hears_every_statement(trips: Trips) -> None:
    """Its events tell of each statement, of BEGIN and COMMIT too, as tracing and echo need it."""
    id = made(trips.database)
    heard: list[str] = []

    def hear(*arguments: Any) -> None:
        heard.append(arguments[2].split()[0])

    sa.event.listen(trips.database.engine, "before_cursor_execute", hear)
    assert await trips.of("read", lambda uow: uow.users.get("-", id)) == 1
    assert set(heard) == {"SELECT"}
    heard.clear()
    await trips.database.write(lambda uow: rename(uow, id, "newer"))
    assert heard == ["BEGIN", "SELECT", "UPDATE", "COMMIT"]


def _started_job(database: Database) -> str:
    owner = made(database)
    with database.unit_of_work() as uow:
        job_id = str(actions.create_job(uow, owner, kind="MEASURE")["id"])
        actions.start_job(uow, owner, job_id)
        uow.commit()
    return job_id
