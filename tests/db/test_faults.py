"""What each database's own errors become: domain errors without a word of the driver's."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.engine import DatabaseOptions
from morag_meta.db.faults import UnforeseenFault
from morag_meta.db.schema import documents, metadata, users
from morag_meta.errors import AlreadyExists, Collision, MetaError, NotFound, Unavailable
from morag_meta.ids import new_id
from morag_meta.uow import UnitOfWork
from tests.backends.databases import Backend, ServerDatabases, chosen_kinds
from tests.backends.mariadb import MariadbServer
from tests.backends.postgresql import PostgresqlServer
from tests.db.accounts import add, made, name_of, new_email, rename
from tests.db.rows import OWNER, fill, sample

_ON_SERVERS = pytest.mark.parametrize(
    "backend", [kind for kind in chosen_kinds() if kind != "sqlite"], indirect=True, scope="session"
)
_OTHERS: dict[str, dict[str, Callable[[], Any]]] = {
    "users": {"id": new_id, "email": new_email},
    "sessions": {"id": new_id, "refresh_hash": new_id},
    "api_keys": {"id": new_id, "key_hash": new_id, "name": new_id},
    "servers": {"id": new_id, "name": new_id},
    "databases": {"id": new_id, "name": new_id},
    "documents": {"id": new_id, "name": new_id, "external_id": new_id, "content_hash": new_id},
    "jobs": {"id": new_id, "open_document_id": lambda: None},
}
"""What makes a row of a table another row."""
_RESOURCES = {"databases": "database"}
_IDENTITY = {"external_id": "mine", "content_hash": "sha256:1"}


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Iterator[Database]:
    """Open a database with one row in each table."""
    url = backend.new_url()
    migrate.upgrade(url)
    fill(url)
    opened = Database.open(url)
    with opened.engine.begin() as connection:
        connection.execute(sa.update(documents).values(_IDENTITY))
    yield opened
    opened.close()
    backend.drop(url)


def _sample() -> dict[str, dict[str, Any]]:
    rows = {table: dict(row) for table, row in sample().items()}
    rows["documents"] |= _IDENTITY
    return rows


def _fault_of(database: Database, work: Callable[[UnitOfWork], Any]) -> Exception:
    with database.unit_of_work() as uow, pytest.raises(Exception) as caught:  # noqa: PT011 - the test looks
        work(uow)
    return caught.value


def _twice(database: Database, table: str, kept: str) -> Exception:
    """Insert a row that has one column in common with the one that is there."""
    row = _sample()[table]
    other = row | {name: make() for name, make in _OTHERS[table].items() if name != kept}
    return _fault_of(database, lambda uow: uow.run(sa.insert(metadata.tables[table]), **other))


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(("users", "email"), ("sessions", "refresh_hash"), ("api_keys", "key_hash"), ("api_keys", "name")),
        *(("servers", "name"), ("databases", "name")),
        *(("documents", name) for name in ("name", "external_id", "content_hash")),
    ],
)
def test_a_taken_value_names_its_resource_and_field(filled: Database, table: str, column: str) -> None:
    """A unique constraint becomes ALREADY_EXISTS with the resource and the field, never the value."""
    fault = _twice(filled, table, column)
    assert isinstance(fault, AlreadyExists)
    assert fault.reason == "RESOURCE_EXISTS"
    assert fault.metadata == {"resource_type": table.removesuffix("s"), "field": column}
    assert str(_sample()[table][column]) not in fault.message


def test_a_second_open_ingestion_is_told_as_such(filled: Database) -> None:
    """The constraint that a document has one open ingestion job at most has a reason of its own."""
    fault = _twice(filled, "jobs", "open_document_id")
    assert isinstance(fault, AlreadyExists)
    assert fault.reason == "JOB_ALREADY_OPEN"


def test_a_second_claim_of_a_request_id_collides(filled: Database) -> None:
    """A request id that another transaction claimed meanwhile makes the unit run again, and find it."""
    row = _sample()["request_records"]
    fault = _fault_of(filled, lambda uow: uow.run(sa.insert(metadata.tables["request_records"]), **row))
    assert isinstance(fault, Collision)


@pytest.mark.parametrize("value", ["for key 'uq_users__email'", "a'b", "uq_users__email", "UNIQUE"])
def test_a_value_is_not_taken_for_a_constraint(filled: Database, value: str) -> None:
    """A name that reads like a part of a database's message misleads nobody."""
    with filled.unit_of_work() as uow:
        row = _sample()["servers"] | {"id": new_id(), "name": value}
        uow.run(sa.insert(metadata.tables["servers"]), **row)
        with pytest.raises(AlreadyExists) as caught:
            uow.run(sa.insert(metadata.tables["servers"]), **(row | {"id": new_id()}))
    assert caught.value.metadata == {"resource_type": "server", "field": "name"}


def test_a_missing_owner_is_not_found(filled: Database) -> None:
    """A row for an owner that does not exist is NOT_FOUND, naming the user."""
    nobody = new_id()
    row = _sample()["servers"] | {"id": new_id(), "owner_id": nobody}
    fault = _fault_of(filled, lambda uow: uow.run(sa.insert(metadata.tables["servers"]), **row))
    assert isinstance(fault, NotFound)
    assert fault.metadata == {"resource_type": "user", "resource_id": nobody}


@_ON_SERVERS
def test_a_parent_that_went_meanwhile_collides(filled: Database) -> None:
    """A child of a parent that is not there makes the unit run again, which finds out what is wrong."""
    row = _sample()["databases"] | {"id": new_id(), "name": "x", "server_id": new_id()}
    fault = _fault_of(filled, lambda uow: uow.run(sa.insert(metadata.tables["databases"]), **row))
    assert isinstance(fault, Collision)


def test_a_parent_whose_children_came_meanwhile_collides(filled: Database) -> None:
    """Deleting a row that others point at makes the unit run again."""
    statement = sa.delete(users).where(users.c.id == sa.bindparam("user_id"))
    fault = _fault_of(filled, lambda uow: uow.run(statement, user_id=OWNER))
    assert isinstance(fault, Collision)


@pytest.mark.parametrize(
    "wrong", [{"role": "EMPEROR"}, {"name": None}, {"active": None, "name": "Secret Name"}], ids=str
)
def test_what_no_caller_can_cause_is_told_without_the_row(filled: Database, wrong: dict[str, Any]) -> None:
    """A broken check or a missing value is unforeseen; its traceback holds no value of the row."""
    row = _sample()["users"] | {"id": new_id(), "email": "secret@example.org", "name": "Secret Name"} | wrong
    fault = _fault_of(filled, lambda uow: uow.run(sa.insert(users), **row))
    assert not isinstance(fault, MetaError)
    text = "".join(traceback.format_exception(fault))
    assert "IntegrityError" in text or "Violation" in text or "OperationalError" in text
    for value in ("Secret Name", "secret@example.org", row["id"]):
        assert value not in text


@_ON_SERVERS
def test_a_value_that_a_column_cannot_hold_is_unforeseen(filled: Database) -> None:
    """Text longer than its column, which validation lets nobody send, is unforeseen and quoted nowhere."""
    row = _sample()["users"] | {"id": new_id(), "email": new_email(), "name": "LongSecret" * 100}
    fault = _fault_of(filled, lambda uow: uow.run(sa.insert(users), **row))
    assert isinstance(fault, UnforeseenFault)
    assert "LongSecret" not in "".join(traceback.format_exception(fault))


def test_a_missing_table_is_an_outage_and_not_an_absence(backend: Backend) -> None:
    """A database that was never migrated is UNAVAILABLE or unforeseen: nothing is said not to exist."""
    url = backend.new_empty_url()
    database = Database.open(url)
    fault = _fault_of(database, lambda uow: uow.users.get("-", OWNER))
    assert isinstance(fault, Unavailable | UnforeseenFault)
    database.close()
    backend.drop(url)


def _kill_connections(backend: Backend, url: str) -> None:
    """Have the server end every connection to a database."""
    assert isinstance(backend, ServerDatabases)
    server, name = backend.server, url.rpartition("/")[2]
    if isinstance(server, PostgresqlServer):
        server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        return
    assert isinstance(server, MariadbServer)
    for (id,) in server.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
        server.execute(f"KILL {id}", missing=1094)


@_ON_SERVERS
async def test_a_killed_connection_is_not_noticed_by_a_read(
    backend: Backend, database: Database, migrated_url: str
) -> None:
    """After the server ended every connection the next reads succeed, each on a new one."""
    id = made(database)
    for _ in range(3):
        names = await asyncio.gather(
            *(database.read(lambda uow: uow.users.get("-", id)["name"]) for _ in range(8))
        )
        assert names == ["Ada"] * 8
        _kill_connections(backend, migrated_url)
    assert name_of(database, id) == "Ada"


@_ON_SERVERS
async def test_a_connection_killed_before_commit_runs_the_unit_again(
    backend: Backend, database: Database, migrated_url: str
) -> None:
    """A write whose connection is ended midway begins anew on another one, and is kept once."""
    email, runs = new_email(), 0

    def work(uow: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        add(uow, email)
        if runs == 1:
            _kill_connections(backend, migrated_url)
        uow.users.find_by_email(email)

    await database.write(work)
    assert runs == 2
    with database.unit_of_work() as uow:
        assert uow.users.find_by_email(email) is not None


@_ON_SERVERS
async def test_connections_that_keep_dying_are_told(
    backend: Backend, database: Database, migrated_url: str
) -> None:
    """A write whose connections die twice is UNAVAILABLE with a delay, keeps nothing, and hurts nothing."""
    id = made(database)

    def work(uow: UnitOfWork) -> None:
        rename(uow, id, "never")
        _kill_connections(backend, migrated_url)
        uow.users.get("-", id)

    with pytest.raises(Unavailable) as refusal:
        await database.write(work)
    assert (refusal.value.reason, refusal.value.retry_after) == ("DATABASE_UNAVAILABLE", 1.0)
    assert await database.read(lambda uow: uow.users.get("-", id)["name"]) == "Ada"


@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_statement_that_takes_too_long_is_ended(migrated_url: str, way: str) -> None:
    """A statement beyond its limit is UNAVAILABLE in time, and its thread and connection serve on."""
    database = Database(DatabaseOptions(url=migrated_url, statement_timeout=1.0))
    endless = {
        "postgresql": "SELECT pg_sleep(30)",
        "mariadb": "SELECT SLEEP(30), (SELECT COUNT(*) FROM users)",
        "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
    }[database.dialect]
    began = time.monotonic()
    with pytest.raises(Unavailable) as refusal:
        await getattr(database, way)(lambda uow: uow.one(sa.text(endless)))
    assert time.monotonic() - began < 8
    assert refusal.value.reason == "DATABASE_UNAVAILABLE"
    email = new_email()
    assert (await database.write(lambda uow: add(uow, email)))["email"] == email
    database.close()
