"""A network that swallows everything in silence: no thread waits for good, wherever the silence begins."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.engine import DatabaseOptions
from morag_meta.errors import Unavailable
from morag_meta.uow import UnitOfWork
from tests.backends.databases import ServerDatabases
from tests.backends.proxy import Proxy

STATEMENT_SECONDS, CONNECT_SECONDS = 1.0, 2.0
LIMIT = 2 * (STATEMENT_SECONDS + 2.5 + CONNECT_SECONDS) + 5  # twice, as a lost connection is replaced once

# What is said first on a new connection, from the server's greeting to the first statement.
_STAGES = {
    "postgresql": [b"user\x00", b"pg_catalog.version", b"SELECT users"],
    "mariadb": [b"mysql_native_password", b"SET NAMES", b"SET SESSION", b"SELECT users"],
}


@pytest.fixture(scope="module")
def url(frail: ServerDatabases) -> Iterator[str]:
    """Give a migrated database."""
    made = frail.new_url()
    migrate.upgrade(made)
    yield made
    frail.drop(made)


def _opened(proxy: Proxy, *, pre_ping: bool = False) -> Database:
    return Database(
        DatabaseOptions(
            proxy.url,
            pool_size=1,
            max_overflow=0,
            statement_timeout=STATEMENT_SECONDS,
            connect_timeout=CONNECT_SECONDS,
            pre_ping=pre_ping,
        )
    )


async def _ask(database: Database) -> None:
    await database.read(lambda uow: uow.users.find_by_email("nobody@unit.test"))


async def _is_cut(proxy: Proxy, database: Database, what: str) -> None:
    """Expect a read to end in time while there is silence, and the next to succeed without it."""
    began = time.monotonic()
    async with asyncio.timeout(LIMIT + 5):
        with pytest.raises(Unavailable) as refusal:
            await _ask(database)
    assert time.monotonic() - began < LIMIT, what
    assert refusal.value.reason == "DATABASE_UNAVAILABLE", what
    proxy.flow()
    async with asyncio.timeout(LIMIT):
        await _ask(database)


async def _at_stage(url: str, stage: bytes) -> None:
    with Proxy(url) as proxy, contextlib.closing(_opened(proxy)) as database:
        proxy.stall_at(stage)
        await _is_cut(proxy, database, stage.decode())


async def _before_the_greeting(url: str) -> None:
    with Proxy(url) as proxy, contextlib.closing(_opened(proxy)) as database:
        proxy.stall()
        await _is_cut(proxy, database, "greeting")


async def _on_a_used_connection(url: str, *, pre_ping: bool) -> None:
    with Proxy(url) as proxy, contextlib.closing(_opened(proxy, pre_ping=pre_ping)) as database:
        await _ask(database)
        proxy.stall()
        await _is_cut(proxy, database, f"used, {pre_ping=}")


async def test_silence_is_cut_wherever_it_begins(url: str, frail: ServerDatabases) -> None:
    """Silence before and in the handshake, in the driver's questions, in a test or a statement is cut."""
    await asyncio.gather(
        _before_the_greeting(url),
        _on_a_used_connection(url, pre_ping=False),
        _on_a_used_connection(url, pre_ping=True),
        *(_at_stage(url, stage) for stage in _STAGES[frail.name]),
    )


async def test_silence_at_a_rollback_is_cut(url: str) -> None:
    """Work that fails says so also when the database never answers to its ROLLBACK."""
    with Proxy(url) as proxy, contextlib.closing(_opened(proxy)) as database:

        def fail(uow: UnitOfWork) -> None:
            uow.users.find_by_email("nobody@unit.test")
            proxy.stall()
            raise ZeroDivisionError

        async with asyncio.timeout(LIMIT):
            with pytest.raises(ZeroDivisionError):
                await database.write(fail)
        proxy.flow()
        await _ask(database)


def test_silence_in_a_callers_own_thread_is_cut(url: str) -> None:
    """A unit of work of a program that embeds the service ends in time too, and the next one works."""
    with Proxy(url) as proxy, contextlib.closing(_opened(proxy)) as database:

        def ask() -> None:
            with database.unit_of_work() as uow:
                proxy.stall()
                uow.users.find_by_email("nobody@unit.test")

        began = time.monotonic()
        with pytest.raises(Unavailable):
            ask()
        assert time.monotonic() - began < LIMIT
        proxy.flow()
        with database.unit_of_work() as uow:
            assert uow.users.find_by_email("nobody@unit.test") is None
