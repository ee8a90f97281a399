"""Transactions that fall silent: the database ends them, and whoever comes back is told so clearly."""

from __future__ import annotations

import time
from typing import Any

import pytest

from morag_meta.db.database import ATTEMPTS, Database
from morag_meta.db.engine import IDLE_SECONDS, LOCK_WAIT_SECONDS
from morag_meta.db.unit import CommitUnknown
from morag_meta.errors import Collision, Unavailable
from morag_meta.uow import UnitOfWork
from tests.backends.databases import chosen_kinds
from tests.db.accounts import made, name_of, rename

pytestmark = pytest.mark.parametrize(  # SQLite has one writer, who holds the file
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)
_ASKED = {
    "mariadb": "SELECT 1000 * @@session.idle_transaction_timeout",
    "postgresql": "SELECT setting FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'",
}


_LIMITED = {
    "mariadb": "SET SESSION idle_transaction_timeout = {}",
    "postgresql": "SET idle_in_transaction_session_timeout = '{}s'",
}


def _limit(uow: UnitOfWork, seconds: int) -> None:
    """Let the unit's session be silent for so long, from now on: no pause before or after ends it sooner."""
    uow.connection.exec_driver_sql(_LIMITED[uow.dialect].format(seconds))


def test_every_connection_has_the_limit(database: Database) -> None:
    """It is the same on both databases, and ends before those who wait for a lock have given up."""
    with database.unit_of_work() as uow:
        assert int(uow.connection.exec_driver_sql(_ASKED[database.dialect]).scalar_one()) == 10_000
    assert LOCK_WAIT_SECONDS < IDLE_SECONDS < LOCK_WAIT_SECONDS * ATTEMPTS / 2


def _fall_silent(uow: UnitOfWork, database: Database, user_id: str) -> float:
    """Be silent for too long; give how long it took until another has the lock of a user."""
    _limit(uow, 1)
    began = time.monotonic()
    while True:
        try:
            with database.unit_of_work() as other:
                other.users.lock("-", user_id)
                return time.monotonic() - began
        except Collision:
            assert time.monotonic() - began < 20


def test_who_is_silent_loses_the_locks_and_is_told(database: Database) -> None:
    """Another gets the row within seconds; the next statement of the silent one says UNAVAILABLE."""
    user_id = made(database)
    with database.unit_of_work() as uow:
        rename(uow, user_id, "Silent")
        assert _fall_silent(uow, database, user_id) < 8  # seconds less than the limit is by default
        with pytest.raises(Unavailable) as refusal:
            uow.users.get("-", user_id)
        assert refusal.value.reason == "DATABASE_UNAVAILABLE"
        with pytest.raises(RuntimeError):
            uow.commit()
    assert name_of(database, user_id) == "Ada"


def test_a_commit_after_silence_is_said_to_be_in_doubt(database: Database) -> None:
    """Who comes back to commit hears COMMIT_UNKNOWN, and nothing was kept."""
    user_id = made(database)
    with database.unit_of_work() as uow:
        rename(uow, user_id, "Silent")
        _fall_silent(uow, database, user_id)
        with pytest.raises(CommitUnknown):
            uow.commit()
    assert name_of(database, user_id) == "Ada"


async def test_work_that_was_silent_is_done_again(database: Database) -> None:
    """Work for the event loop, whose thread stood still within it, is run once more, and kept once."""
    user_id = made(database)
    runs: list[Any] = []

    def work(uow: UnitOfWork) -> None:
        rename(uow, user_id, f"Run {len(runs)}")
        runs.append(uow)
        if len(runs) == 1:
            _fall_silent(uow, database, user_id)
        uow.users.get("-", user_id)

    await database.write(work)
    assert len(runs) == 2
    assert name_of(database, user_id) == "Run 1"


def test_time_between_transactions_is_nobodys_silence(database: Database) -> None:
    """Only an open transaction ends so: a connection waits for work as long as it likes."""
    user_id = made(database)
    with database.unit_of_work() as uow:
        session = uow.connection.connection.driver_connection
        uow.commit()
        _limit(uow, 1)
        time.sleep(1.6)
        _limit(uow, IDLE_SECONDS)
        uow.begin()
        rename(uow, user_id, "Kept")
        uow.commit()
        assert uow.connection.connection.driver_connection is session
    assert name_of(database, user_id) == "Kept"
