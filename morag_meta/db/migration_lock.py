"""Connections for migrations: one that reads, and one that holds the lock under which the schema changes.

The lock lives in the database, so it holds among all processes and hosts, and it falls with its holder:
PostgreSQL gives a transaction-level advisory lock, MariaDB a named lock of the connection, SQLite its
write lock. What runs under the lock stands in ``db/migrate.py``; the service's own connections are made
in ``db/engine.py``.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from morag_meta.db.sqlite_file import is_missing, make_private
from morag_meta.db.url import masked, normalize

LOCK_WAIT_SECONDS: Final = 60.0
# A statement that cannot have its table at once makes everybody else queue behind it: give up early.
STATEMENT_LOCK_SECONDS: Final = 10
CONNECT_SECONDS: Final = 10

# By SQLSTATE (PostgreSQL), error number (MariaDB) and error name (SQLite).
_REASONS: Final[dict[str | int, str]] = {
    "42501": "permission denied",
    "53100": "the disk is full",
    "53300": "too many connections",
    "55P03": f"a table was in use for more than {STATEMENT_LOCK_SECONDS} s",
    "57P03": "the server is starting or stopping",
    1021: "the disk is full",
    1040: "too many connections",
    1044: "access denied",
    1045: "access denied",
    1049: "there is no such database",
    1142: "permission denied",
    1205: f"a table was in use for more than {STATEMENT_LOCK_SECONDS} s",
    2002: "the server cannot be reached",
    2003: "the server cannot be reached",
    2006: "the connection was lost",
    2013: "the connection was lost",
    "SQLITE_BUSY": "the file is locked by another process",
    "SQLITE_CANTOPEN": "the file cannot be opened; does its folder exist, and may it be written?",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_NOTADB": "the file is not a SQLite database",
    "SQLITE_READONLY": "the file or its folder is read-only",
}
# Before a connection stands, psycopg2 gives a text alone.
_CONNECT_REASONS: Final = {
    "refused": "the server cannot be reached",
    "timeout expired": "the server does not answer",
    "could not translate host name": "its host is unknown",
    "does not exist": "there is no such database or user",
    "authentication failed": "access denied",
    "starting up": "the server is starting or stopping",
    "shutting down": "the server is starting or stopping",
}


class MigrationError(RuntimeError):
    """The schema could not be read or changed; the message is one line for a person, without secrets."""


class MigrationLocked(MigrationError):
    """Another process held the migration lock for longer than this one would wait."""


class SchemaAhead(MigrationError):
    """The database is at a revision that this version of the code does not know."""


@contextmanager
def reading(url: str | sa.URL) -> Iterator[sa.Connection]:
    """Open a connection that takes no lock and makes no file.

    Raises:
        UrlError: the URL cannot be used.
        MigrationError: the database cannot be reached, or the SQLite file is not there.
    """
    refuse_missing(url)
    with _reported(url), _engine(url, CONNECT_SECONDS).connect() as connection:
        yield connection


def refuse_missing(url: str | sa.URL) -> None:
    """Refuse a SQLite file that is not there.

    Raises:
        UrlError: the URL cannot be used, or the file could not even be made.
        MigrationError: says how to make it.
    """
    if is_missing(url):
        raise MigrationError(f"{masked(url)}: the file does not exist; make it with 'morag-meta db upgrade'")


@contextmanager
def migrating(url: str | sa.URL, wait: float = LOCK_WAIT_SECONDS) -> Iterator[sa.Connection]:
    """Open the connection on which migrations run, holding the lock of this database.

    On PostgreSQL and SQLite the block is one transaction, committed at its end. On MariaDB, where every
    DDL statement commits, no transaction is open at its start.

    Args:
        url: the database.
        wait: seconds to wait for the lock.

    Raises:
        UrlError: the URL cannot be used.
        MigrationLocked: the lock was not to be had in time.
        MigrationError: the database cannot be reached, or a statement failed.
    """
    engine = _engine(url, wait)
    name = engine.dialect.name
    if is_missing(url):
        make_private(url)
    if name == "sqlite":
        sa.event.listen(engine, "connect", lambda driver, _: _prepare_sqlite(driver, wait))
        sa.event.listen(engine, "begin", _begin_immediate)
    with _reported(url), engine.connect() as connection, _LOCKS[name](connection, url, wait):
        yield connection


def _engine(url: str | sa.URL, wait: float) -> sa.Engine:
    parsed = normalize(url)
    arguments: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS}
    if parsed.get_backend_name() == "sqlite":
        # Without an isolation level the driver begins nothing by itself, so DDL belongs to our transaction.
        arguments = {"timeout": wait, "isolation_level": None}
    return sa.create_engine(parsed, poolclass=NullPool, hide_parameters=True, connect_args=arguments)


@contextmanager
def _postgresql_lock(connection: sa.Connection, url: str | sa.URL, wait: float) -> Iterator[None]:
    with connection.begin():
        place = connection.exec_driver_sql(
            "SELECT concat(current_database(), '.', current_schema())"
        ).scalar()
        digest = hashlib.blake2b(f"morag-meta {place}".encode(), digest_size=8).digest()
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {max(int(wait * 1000), 1)}")
        with _waiting(url, wait, "55P03"):
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(int.from_bytes(digest, signed=True))))
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {STATEMENT_LOCK_SECONDS * 1000}")
        yield


@contextmanager
def _mariadb_lock(connection: sa.Connection, url: str | sa.URL, wait: float) -> Iterator[None]:
    schema = connection.exec_driver_sql("SELECT DATABASE()").scalar()
    # Lock names are the server's, not the schema's, and end at 64 characters.
    name = f"morag-meta {hashlib.blake2b(str(schema).encode(), digest_size=16).hexdigest()}"
    connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {STATEMENT_LOCK_SECONDS}")
    connection.exec_driver_sql("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'")
    if getattr(connection.dialect, "is_mariadb", False):
        connection.exec_driver_sql("SET SESSION max_statement_time = 0")
    if connection.execute(sa.select(sa.func.get_lock(name, wait))).scalar() != 1:
        raise _locked(url, wait)
    # Alembic would take an open transaction for one that its caller commits.
    connection.commit()
    yield
    connection.commit()
    connection.execute(sa.select(sa.func.release_lock(name)))


@contextmanager
def _sqlite_lock(connection: sa.Connection, url: str | sa.URL, wait: float) -> Iterator[None]:
    with _waiting(url, wait, "SQLITE_BUSY"):
        transaction = connection.begin()
    with transaction:
        yield
        orphans = {str(row[0]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}
        if orphans:
            tables = ", ".join(sorted(orphans))
            raise MigrationError(
                f"{masked(url)}: undone, as it would leave rows without a parent in {tables}"
            )


_Lock = Callable[[sa.Connection, str | sa.URL, float], AbstractContextManager[None]]
_LOCKS: Final[dict[str, _Lock]] = {
    "postgresql": _postgresql_lock,
    "mysql": _mariadb_lock,
    "sqlite": _sqlite_lock,
}


def _prepare_sqlite(driver: sqlite3.Connection, wait: float) -> None:
    """Set what cannot be set within a transaction."""
    # With foreign keys on, the table copies of a batch migration would delete the children.
    driver.execute("PRAGMA foreign_keys = OFF")
    deadline = time.monotonic() + wait
    while driver.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            driver.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # The busy timeout does not always cover this change.
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _waiting(url: str | sa.URL, wait: float, refusal: str) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if _code(error) != refusal:
            raise
        raise _locked(url, wait) from error


def _locked(url: str | sa.URL, wait: float) -> MigrationLocked:
    return MigrationLocked(
        f"{masked(url)}: another process has held the migration lock for {wait:g} s; try again when it ended"
    )


@contextmanager
def _reported(url: str | sa.URL) -> Iterator[None]:
    """Turn a driver's exception into one line that holds nothing of its text, which may quote rows."""
    try:
        yield
    except DBAPIError as error:
        raise MigrationError(f"{masked(url)}: {_reason(error)}") from error


def _code(error: DBAPIError) -> str | int | None:
    original = error.orig
    name = getattr(original, "sqlite_errorname", None)
    if name is not None:
        return "_".join(str(name).split("_")[:2])  # SQLITE_READONLY_DIRECTORY is SQLITE_READONLY
    state = getattr(original, "pgcode", None)
    if state is not None:
        return str(state)
    first = getattr(original, "args", (None,))[0]
    return first if isinstance(first, int) else None


def _reason(error: DBAPIError) -> str:
    code = _code(error)
    known = _REASONS.get(code) if code is not None else None
    if known is not None:
        return known
    text = str(error.orig)
    for fragment, words in _CONNECT_REASONS.items():
        if code is None and fragment in text:
            return words
    return f"a statement failed ({type(error.orig).__name__} {code or ''})".replace(" )", ")")
