"""A database with users, keys and sessions, and the parts of a process that prove who calls."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.api_keys.actions import create_key, lock_key, revoke
from morag_meta.auth.authenticator import Authenticator
from morag_meta.auth.epoch import EpochWatch
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.principal import Principal, Rate, Role
from morag_meta.auth.rates import Rates
from morag_meta.auth.tokens import Tokens
from morag_meta.auth.usage import KeyUsage
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.statements import EVERYONE
from morag_meta.ids import new_id
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend

HASHER = KeyHasher(bytes(range(32)))
TOKENS = Tokens(bytes(range(64)), bytes(range(64, 96)))


class Process:
    """One process's view of a database: its cache, its watch, its counters."""

    def __init__(
        self, url: str, *, trust: float = 5.0, cache_size: int = 10_000, strangers: Rate | None = None
    ) -> None:
        """Open the database; no background task runs unless a test starts it."""
        self.database = Database.open(url)
        self.epochs = EpochWatch(self.database, interval=0.1, trust=trust)
        self.usage = KeyUsage(self.database)
        rates = Rates(of_addresses=strangers)
        self.authenticator = Authenticator(
            self.database, HASHER, TOKENS, self.epochs, self.usage, rates, cache_size=cache_size
        )
        self.away = False
        self._statements: list[str] = []
        sa.event.listen(self.database.engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith("PRAGMA"):  # what SQLite is told once per connection
            self._statements.append(statement)
        if self.away:
            raise sa.exc.OperationalError(statement, {}, Exception("the driver lost the database"))

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """Gather the statements that the block sends."""
        self._statements.clear()
        yield self._statements

    async def caller(self, key: str) -> Principal:
        """Give who calls with a key."""
        return await self.authenticator.authenticate({"x-api-key": key})

    def revoke(self, key_id: str) -> None:
        """Revoke a key."""
        with self.database.unit_of_work() as uow:
            revoke(uow, lock_key(uow, EVERYONE, key_id))
            uow.commit()

    def add_user(self, role: Role = Role.USER) -> str:
        """Make a user; give the id."""
        with self.database.unit_of_work() as uow:
            user = create_user(uow, name="Somebody", email=f"{new_id()}@example.org", role=role)
            uow.commit()
        return str(user["id"])

    def add_key(self, owner_id: str, **fields: Any) -> tuple[str, str]:
        """Make a key of a user; give its id and the secret."""
        with self.database.unit_of_work() as uow:
            row, secret = create_key(uow, HASHER, owner_id=owner_id, name=new_id(), **fields)
            uow.commit()
        return row["id"], secret

    def add_session(self, owner_id: str, life: float = 3600) -> tuple[str, str]:
        """Open a session of a user; give its id and an access token."""
        with self.database.unit_of_work() as uow:
            end = uow.now + dt.timedelta(seconds=life)
            id = new_id()
            uow.sessions.add(owner_id, id, refresh_hash=HASHER.digest(new_id()), expire_time=end)
            uow.commit()
            token, _ = TOKENS.issue(owner_id, id, Role.USER, now=uow.now, session_end=end)
        return id, token

    def execute(self, statement: str) -> None:
        """Do to the database what no store does."""
        with self.database.engine.connect() as connection:
            connection.exec_driver_sql(statement)


async def eventually(fact: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a fact holds that a background task brings about."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} seconds"
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def shared_url(backend: Backend) -> Iterator[str]:
    """A database for all tests of a module, which keep apart by making users of their own."""
    url = backend.new_url()
    migrate.upgrade(url)
    yield url
    backend.drop(url)


@pytest.fixture
def process(shared_url: str) -> Iterator[Process]:
    """A process that has just started on the shared database."""
    opened = Process(shared_url)
    yield opened
    opened.database.close()


@pytest.fixture
def other(shared_url: str) -> Iterator[Process]:
    """Another process on the same database."""
    opened = Process(shared_url)
    yield opened
    opened.database.close()


@pytest.fixture
def lonely(database_url: str) -> Iterator[Process]:
    """A process on a database of its own, for what would disturb other tests."""
    migrate.upgrade(database_url)
    opened = Process(database_url)
    yield opened
    opened.database.close()
