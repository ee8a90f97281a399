"""The migrated tables mean the same on every database: text, times, numbers, long values, and parents."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from morag_meta.db import migrate
from morag_meta.db.schema import databases, documents, jobs, metadata, servers, user_settings, users
from morag_meta.ids import new_id
from tests.backends.databases import Backend
from tests.db.rows import (
    DATABASE,
    DOCUMENT,
    JOB,
    NOW,
    OTHER,
    OWNER,
    SERVER,
    database,
    document,
    engine_of,
    fill,
    job,
    sample,
    server,
    user,
)


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Iterator[sa.Engine]:
    """Give a migrated database with one row in each table, and a second user with a server."""
    url = backend.new_empty_url()
    migrate.upgrade(url)
    fill(url)
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(sa.insert(users).values(**user(OTHER, "bob@example.org")))
        connection.execute(sa.insert(servers).values(**server(OTHER, OTHER, "bobs")))
    yield engine
    backend.drop(url)


@pytest.fixture
def connection(filled: sa.Engine) -> Iterator[sa.Connection]:
    """Give a connection to it, whose changes are undone."""
    with filled.connect() as opened:
        yield opened
        opened.rollback()


@pytest.mark.parametrize(
    "twin", ["ADA@example.org", "ada@example.org ", "adá@example.org", "ada@example.org\t"]
)
def test_unique_text_tells_case_blanks_and_accents_apart(connection: sa.Connection, twin: str) -> None:
    """A key that differs by case, a trailing blank or an accent is another key; an equal one is refused."""
    connection.execute(sa.insert(users).values(**user(new_id(), twin)))
    found = connection.execute(sa.select(users.c.email).where(users.c.email == twin)).scalars().all()
    assert found == [twin]
    with pytest.raises(IntegrityError):
        connection.execute(sa.insert(users).values(**user(new_id(), twin)))


def test_comparison_tells_case_and_blanks_apart(connection: sa.Connection) -> None:
    """'a', 'A' and 'a ' are three names of one owner, and each is found alone."""
    for name in ("a", "A", "a "):
        connection.execute(sa.insert(servers).values(**server(new_id(), OWNER, name)))
    for name in ("a", "A", "a "):
        query = sa.select(servers.c.name).where(servers.c.owner_id == OWNER, servers.c.name == name)
        assert connection.execute(query).scalars().all() == [name]


BOBS: list[tuple[sa.Table, dict[str, Any]]] = [
    (databases, database(new_id(), OTHER, SERVER, "on-another's-server")),
    (documents, document(new_id(), OTHER, DATABASE, "in-another's-database")),
    (jobs, job(new_id(), OTHER, DOCUMENT) | {"open_document_id": None}),
    (user_settings, {**sample()["user_settings"], "owner_id": OTHER, "default_database_id": DATABASE}),
    (metadata.tables["job_events"], {**sample()["job_events"], "owner_id": OTHER, "number": 2}),
    (
        metadata.tables["database_grants"],
        {**sample()["database_grants"], "owner_id": OTHER, "grantee_id": OWNER},
    ),
]


@pytest.mark.parametrize(("table", "row"), BOBS, ids=[table.name for table, _ in BOBS])
def test_a_child_of_another_owners_parent_is_impossible(
    connection: sa.Connection, table: sa.Table, row: dict[str, Any]
) -> None:
    """A row can neither be made below another owner's parent nor be moved there."""
    with pytest.raises(IntegrityError):
        connection.execute(sa.insert(table).values(**row))


@pytest.mark.parametrize("table", ["users", "servers", "databases", "documents", "jobs"])
def test_parents_are_not_deleted_below_their_children(connection: sa.Connection, table: str) -> None:
    """A parent with children cannot be deleted, and no delete takes children along."""
    with pytest.raises(IntegrityError):
        connection.execute(sa.delete(metadata.tables[table]))


def test_a_document_without_a_database_needs_none(connection: sa.Connection) -> None:
    """The composite foreign key lets a null pass: a document may belong to no database."""
    connection.execute(sa.insert(documents).values(**document(new_id(), OTHER, None, "loose.txt")))


REFUSED: list[tuple[sa.Table, dict[str, Any]]] = [
    (users, {"role": "ROOT"}),
    (user_settings, {"theme": "dark"}),
    (servers, {"kind": "MYSQL"}),
    (servers, {"port": 0}),
    (servers, {"port": 65536}),
    (databases, {"document_count": -1}),
    (documents, {"state": "LOST"}),
    (documents, {"chunks": -1}),
    (documents, {"quality": 1.0000001}),
    (documents, {"quality": -0.1}),
    (documents, {"version": 0}),
    (documents, {"state": "DELETED"}),
    (documents, {"live_scope": None}),
    (jobs, {"state": "DONE"}),
    (jobs, {"execution": "BOTH"}),
    (jobs, {"percentage": 101}),
    (jobs, {"percentage": -1}),
    (jobs, {"priority": 0}),
    (jobs, {"priority": 5}),
    (jobs, {"document_id": None, "open_document_id": None}),
    (jobs, {"state": "FINISHED"}),
    (jobs, {"end_time": NOW}),
    (metadata.tables["job_events"], {"state": "DONE"}),
    (metadata.tables["job_events"], {"number": 0}),
    (metadata.tables["auth_epoch"], {"id": 2}),
    (metadata.tables["database_grants"], {"level": "OWNER"}),
    (metadata.tables["database_grants"], {"grantee_id": OWNER}),
]


@pytest.mark.parametrize(
    ("table", "change"), REFUSED, ids=[f"{table.name}-{next(iter(row.items()))}" for table, row in REFUSED]
)
def test_checks_hold(connection: sa.Connection, table: sa.Table, change: dict[str, Any]) -> None:
    """A value out of its range, or two that contradict each other, are refused by the database."""
    with pytest.raises(DBAPIError):
        connection.execute(sa.update(table).values(**change))


@pytest.mark.parametrize("second", ["name", "external_id", "content_hash"])
def test_identity_is_unique_among_live_documents(connection: sa.Connection, second: str) -> None:
    """Name, external id and content hash are unique in a database, but not to what was deleted."""
    same = {"external_id": "x", "content_hash": "h"}
    connection.execute(sa.update(documents).where(documents.c.id == DOCUMENT).values(**same))
    twin = document(new_id(), OWNER, DATABASE, "another.pdf")
    twin |= {second: {"name": "paper.pdf", **same}[second]}
    deleted = twin | {"state": "DELETED", "live_scope": None}
    connection.execute(sa.insert(documents).values(**deleted))
    with pytest.raises(IntegrityError):
        connection.execute(sa.insert(documents).values(**twin))


def test_one_open_job_per_document(connection: sa.Connection) -> None:
    """A second open ingestion of a document is refused by the database; other jobs of it are not."""
    connection.execute(sa.insert(jobs).values(**job(new_id(), OWNER, DOCUMENT) | {"open_document_id": None}))
    with pytest.raises(IntegrityError):
        connection.execute(sa.insert(jobs).values(**job(new_id(), OWNER, DOCUMENT)))


@pytest.mark.parametrize(
    "moment",
    [
        NOW,
        dt.datetime(2026, 10, 25, 1, 30, 0, 1, tzinfo=dt.UTC),
        dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
        dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
        dt.datetime(2026, 3, 1, 14, 0, 0, 999999, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45))),
    ],
)
def test_times_keep_microseconds_and_zone(connection: sa.Connection, moment: dt.datetime) -> None:
    """A time comes back as the same instant in UTC, to the microsecond, and is found by it."""
    connection.execute(sa.update(users).where(users.c.id == OWNER).values(update_time=moment))
    query = sa.select(users.c.update_time).where(users.c.id == OWNER, users.c.update_time == moment)
    found = connection.execute(query).scalar_one()
    assert found == moment
    assert found.tzinfo == dt.UTC


def test_times_order_by_microseconds(connection: sa.Connection) -> None:
    """Times a microsecond apart sort in their order."""
    later = NOW + dt.timedelta(microseconds=1)
    connection.execute(sa.update(users).where(users.c.id == OWNER).values(create_time=later))
    both = sa.select(users.c.id).where(users.c.id.in_([OWNER, OTHER]))
    found = connection.execute(both.order_by(users.c.create_time.desc())).scalars().all()
    assert found == [OWNER, OTHER]


def test_naive_times_are_refused(connection: sa.Connection) -> None:
    """A time without a zone never reaches the database."""
    with pytest.raises(sa.exc.StatementError, match="naive"):
        connection.execute(sa.update(users).values(update_time=dt.datetime(2026, 1, 1)))  # noqa: DTZ001


@pytest.mark.parametrize("size", [64 * 1024, 300_000])
def test_long_values_come_back_whole(connection: sa.Connection, size: int) -> None:
    """JSON and text beyond 64 KiB, of characters of four bytes, come back as they were."""
    value = {
        "text": "\N{CLINKING BEER MUGS}" * (size // 4),
        "nested": [[1, 2.5, None, True, "ü"]],
        "z": 1,
        "a": 2,
    }
    text = "\N{CLINKING BEER MUGS}" * size
    connection.execute(sa.update(documents).where(documents.c.id == DOCUMENT).values(metadata=value))
    connection.execute(sa.update(databases).where(databases.c.id == DATABASE).values(description=text))
    found = connection.execute(sa.select(documents.c.metadata)).scalar_one()
    assert found == value
    assert list(found) == list(value)
    assert connection.execute(sa.select(databases.c.description)).scalar_one() == text


def test_numbers_keep_their_width(connection: sa.Connection) -> None:
    """Counters hold 64 bits, and a quality comes back as the same double."""
    big = 2**63 - 1
    change = {"size_bytes": big, "quality": 0.1 + 0.2}
    connection.execute(sa.update(documents).where(documents.c.id == DOCUMENT).values(**change))
    row = connection.execute(sa.select(documents.c.size_bytes, documents.c.quality)).one()
    assert tuple(row) == (big, 0.1 + 0.2)
    connection.execute(sa.update(jobs).where(jobs.c.id == JOB).values(event_number=big))
    assert connection.execute(sa.select(jobs.c.event_number)).scalar_one() == big


def test_text_at_its_limit_fits(connection: sa.Connection) -> None:
    """The longest values that the API takes fit their columns in characters of four bytes."""
    longest = {
        column.name: "\N{CLINKING BEER MUGS}" * column.type.length
        for column in documents.columns
        if isinstance(column.type, sa.String) and column.type.length and column.name in _FREE_TEXT
    }
    assert longest.keys() == _FREE_TEXT
    connection.execute(sa.update(documents).where(documents.c.id == DOCUMENT).values(**longest))
    row = connection.execute(sa.select(documents)).mappings().one()
    assert {name: row[name] for name in longest} == longest


_FREE_TEXT = {"name", "type", "source", "external_id", "content_hash", "last_error", "deprecation_reason"}
