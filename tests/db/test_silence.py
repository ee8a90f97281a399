"""Transactions that fall silent: the database ends them, and whoever comes back is told so clearly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from morag_meta.db import engine
from morag_meta.db.database import ATTEMPTS, Database
from morag_meta.db.engine import IDLE_SECONDS, LOCK_WAIT_SECONDS
from morag_meta.db.unit import CommitUnknown
from morag_meta.errors import Collision, Unavailable
from tests.backends.databases import chosen_kinds
from tests.db.accounts import made, name_of, rename

pytestmark = pytest.mark.parametrize(  # SQLite has one writer, who holds the file
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)
_ASKED = {
    "mariadb": "SELECT 1000 * @@session.idle_transaction_timeout",
    "postgresql": "SELECT setting FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'",
}


@pytest.fixture
def hasty(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Open the database so that a transaction may be silent for a second alone."""
    monkeypatch.setattr(engine, "IDLE_SECONDS", 1)
    opened = Database.open(migrated_url)
    yield opened
    opened.close()


def test_every_connection_has_the_limit(database: Database) -> None:
    """It is the same on both databases, and ends before those who wait for a lock have given up."""
    with database.unit_of_work() as uow:
        assert int(uow.connection.exec_driver_sql(_ASKED[database.dialect]).scalar_one()) == 10_000
    assert LOCK_WAIT_SECONDS < IDLE_SECONDS < LOCK_WAIT_SECONDS * ATTEMPTS / 2


def _until_locked(database: Database, user_id: str) -> float:
    """Lock a user as soon as can be; give how long it took."""
    began = time.monotonic()
    while True:
        try:
            with database.unit_of_work() as uow:
                uow.users.lock("-", user_id)
                return time.monotonic() - began
        except Collision:
            assert time.monotonic() - began < 20


def test_who_is_silent_loses_the_locks_and_is_told(database: Database, hasty: Database) -> None:
    """Another gets the row within seconds; the next statement of the silent one says UNAVAILABLE."""
    user_id = made(database)
    with hasty.unit_of_work() as uow:
        rename(uow, user_id, "Silent")
        assert _until_locked(database, user_id) < 8  # seconds less than the limit is by default
        with pytest.raises(Unavailable) as refusal:
            uow.users.get("-", user_id)
        assert refusal.value.reason == "DATABASE_UNAVAILABLE"
        with pytest.raises(RuntimeError):
            uow.commit()
    assert name_of(database, user_id) == "Ada"


def test_a_commit_after_silence_is_said_to_be_in_doubt(database: Database, hasty: Database) -> None:
    """Who comes back to commit hears COMMIT_UNKNOWN, and nothing was kept."""
    user_id = made(database)
    with hasty.unit_of_work() as uow:
        rename(uow, user_id, "Silent")
        _until_locked(database, user_id)
        with pytest.raises(CommitUnknown):
            uow.commit()
    assert name_of(database, user_id) == "Ada"


async def test_work_that_was_silent_is_done_again(database: Database, hasty: Database) -> None:
    """Work for the event loop, whose thread stood still within it, is run once more, and kept once."""
    user_id = made(database)
    runs: list[Any] = []

    def work(uow: Any) -> None:
        rename(uow, user_id, f"Run {len(runs)}")
        runs.append(uow)
        if len(runs) == 1:
            _until_locked(database, user_id)
        uow.users.get("-", user_id)

    await hasty.write(work)
    assert len(runs) == 2
    assert name_of(database, user_id) == "Run 1"


def test_time_between_transactions_is_nobodys_silence(database: Database, hasty: Database) -> None:
    """Only an open transaction ends so: a connection waits for work as long as it likes."""
    user_id = made(database)
    with hasty.unit_of_work() as uow:
        session = uow.connection.connection.driver_connection
        uow.commit()
        time.sleep(1.6)
        uow.begin()
        rename(uow, user_id, "Kept")
        uow.commit()
        assert uow.connection.connection.driver_connection is session
    assert name_of(database, user_id) == "Kept"
