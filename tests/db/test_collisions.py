"""Concurrent changes that the database refuses: provoked for real, run again, and bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from morag_meta.db import engine
from morag_meta.db.database import ATTEMPTS, Database
from morag_meta.errors import Collision, Stale
from morag_meta.uow import UnitOfWork
from tests.backends.databases import chosen_kinds
from tests.db.accounts import made, name_of, rename

_ON_SERVERS = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)
_ON_POSTGRESQL = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind == "postgresql"], indirect=True, scope="session"
)


@pytest.fixture
def impatient(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Open a database that waits a second at most for a row's lock."""
    monkeypatch.setattr(engine, "LOCK_WAIT_SECONDS", 1)
    opened = Database.open(migrated_url)
    yield opened
    opened.close()


class Crossing:
    """Two units of work that lock two rows in opposite orders, and meet in the middle the first time."""

    def __init__(self, one: str, two: str) -> None:
        self._ids = (one, two)
        self._meeting = threading.Barrier(2)
        self.runs = [0, 0]

    def work(self, side: int) -> object:
        """Give the unit of work of one side."""
        first, second = self._ids if side == 0 else reversed(self._ids)

        def run(uow: UnitOfWork) -> str:
            self.runs[side] += 1
            rename(uow, first, f"by {side}")
            if self.runs[side] == 1:
                self._meeting.wait(10)
            rename(uow, second, f"by {side}")
            return "done"

        return run


@_ON_SERVERS
async def test_a_deadlock_is_run_again(database: Database) -> None:
    """Of two units in a deadlock the database ends one, which is run again; both are kept, whole."""
    one, two = made(database), made(database)
    crossing = Crossing(one, two)
    works = [crossing.work(side) for side in (0, 1)]
    assert await asyncio.gather(*(database.write(work) for work in works)) == ["done"] * 2  # type: ignore[arg-type]
    assert sorted(crossing.runs) == [1, 2]
    last = f"by {crossing.runs.index(2)}"  # it ran after the other one had ended
    assert (name_of(database, one), name_of(database, two)) == (last, last)


@_ON_POSTGRESQL
async def test_a_serialization_failure_is_run_again(database: Database) -> None:
    """A unit whose snapshot was overtaken by a change is run again on a fresh one."""
    id, runs = made(database), 0

    def work(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        uow.connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        before = uow.users.get("-", id)["name"]
        if runs < 3:
            with database.unit_of_work() as other:
                rename(other, id, f"other {runs}")
                other.commit()
        rename(uow, id, f"after {before}")

    await database.write(work)
    assert (runs, name_of(database, id)) == (3, "after other 2")


@_ON_SERVERS
async def test_a_lock_that_takes_too_long_is_tried_again(impatient: Database) -> None:
    """Who waits longer than a moment for a row's lock begins anew, and gets it when it is free."""
    id, runs, again = made(impatient), 0, threading.Event()

    def work(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            again.set()
        rename(uow, id, "mine")

    with impatient.unit_of_work() as holder:
        rename(holder, id, "theirs")
        waiting = asyncio.create_task(impatient.write(work))
        assert await asyncio.to_thread(again.wait, 10)
        holder.commit()
    await waiting
    assert runs >= 2
    assert name_of(impatient, id) == "mine"


async def test_collisions_without_an_end_are_told(database: Database) -> None:
    """A unit that collides again and again ends with ABORTED, CONFLICT, after a few runs, and did nothing."""
    id, runs = made(database), 0

    def work(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        rename(uow, id, "never")
        raise Collision

    began = time.monotonic()
    with pytest.raises(Stale) as refusal:
        await database.write(work)
    assert (runs, refusal.value.reason) == (ATTEMPTS, "CONFLICT")
    assert time.monotonic() - began < 15
    assert name_of(database, id) == "Ada"


async def test_only_the_last_run_has_effects(database: Database) -> None:
    """Effects and announcements of runs that collided are forgotten; those of the last one count."""
    followed: list[str] = []
    database.listen(followed.extend)
    runs = 0

    def work(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        number = runs
        uow.announce(f"topic {number}")
        uow.after_commit(lambda: followed.append(f"effect {number}"))
        if runs < 3:
            raise Collision

    await database.write(work)
    assert followed == ["topic 3", "effect 3"]


async def test_each_run_has_a_time_of_its_own(database: Database) -> None:
    """A unit that is run again does not bear the time at which it first collided."""
    times = []

    def work(uow: UnitOfWork) -> None:
        times.append(uow.now)
        if len(times) == 1:
            raise Collision

    await database.write(work)
    assert times[0] < times[1]


async def test_many_changes_of_one_row_all_happen(database: Database) -> None:
    """Fifty concurrent units that add to one row lose nothing, on every database."""
    id = made(database)

    def work(uow: UnitOfWork) -> None:
        row = uow.users.lock("-", id)
        uow.users.change(row, name=row["name"] + "+")

    await asyncio.gather(*(database.write(work) for _ in range(50)))
    assert name_of(database, id) == "Ada" + "+" * 50
    with database.unit_of_work() as uow:
        assert uow.users.get("-", id)["revision"] == 51


@_ON_SERVERS
def test_a_locked_row_stands_in_the_way_of_no_other(database: Database) -> None:
    """While one row is locked, another one is changed without waiting."""
    one, two = made(database), made(database)
    with database.unit_of_work() as holder:
        rename(holder, one, "held")
        began = time.monotonic()
        with database.unit_of_work() as other:
            rename(other, two, "free")
            other.commit()
        assert time.monotonic() - began < engine.LOCK_WAIT_SECONDS
        assert holder.one(sa.select(sa.literal(1).label("one"))) == {"one": 1}
