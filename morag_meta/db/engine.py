"""Engines: how a connection of each database is opened, and what is set on it.

One engine per database, in driver-level AUTOCOMMIT: a single statement is then one round trip, and
``db/unit.py`` emits BEGIN, COMMIT and ROLLBACK itself. What a driver's exception means stands in
``db/faults.py``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from morag_meta.db.reach import heed
from morag_meta.db.sqlite_file import make_private
from morag_meta.db.url import dialect_name, normalize

SQLITE_BUSY_SECONDS = 10.0
LOCK_WAIT_SECONDS = 5
IDLE_SECONDS = 10
"""How long a transaction may be silent before PostgreSQL or MariaDB ends it, and gives its locks back.

The service's own are silent for milliseconds: one that is for so long is that of a host that vanished, or of
a process that stands still. It is far less than who waits for a lock goes on trying (``LOCK_WAIT_SECONDS``,
``ATTEMPTS`` times), so that their calls still get what they wait for. MySQL knows no such limit.
"""


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """How to reach and use one database; times are seconds."""

    url: str = field(repr=False)
    pool_size: int = 5
    max_overflow: int = 3
    pool_timeout: float = 30.0
    pool_recycle: float = 3600.0
    pre_ping: bool = False
    echo: bool = False
    statement_timeout: float = 10.0
    connect_timeout: float = 5.0
    queue: int = 256
    default_quotas: Mapping[str, int] = field(default_factory=dict, hash=False)
    """The limits of users who have none of their own, by resource (``quotas/store.py``)."""

    @property
    def dialect(self) -> str:
        """The database's name: sqlite, postgresql or mariadb."""
        return dialect_name(self.url)

    @property
    def connections(self) -> int:
        """The most connections, and threads, that units of work of one process use."""
        return self.pool_size + self.max_overflow


def make_engine(options: DatabaseOptions, *, pooled: bool = True) -> sa.Engine:
    """Make the engine of a database; opens no connection.

    ``pooled=False`` gives each user a connection of its own, for probes and pollers.
    """
    url = normalize(options.url)
    arguments: dict[str, Any] = {
        "isolation_level": "AUTOCOMMIT",
        "skip_autocommit_rollback": True,
        "echo": options.echo,
        "hide_parameters": True,
        "connect_args": _connect_arguments(options, url),
    }
    # On SQLite each thread of a lane and the event loop keep a connection of their own.
    if pooled and options.dialect != "sqlite":
        arguments |= {
            "pool_size": options.pool_size,
            # The threads of a lane keep theirs; as many again are for units of work in the callers' threads.
            "max_overflow": options.max_overflow + options.connections,
            "pool_timeout": options.pool_timeout,
            "pool_recycle": int(options.pool_recycle),
            "pool_pre_ping": options.pre_ping,
            "pool_reset_on_return": None,
        }
    else:
        arguments["poolclass"] = NullPool
    engine = sa.create_engine(url, **arguments)
    if options.dialect == "sqlite":
        sa.event.listen(engine, "do_connect", lambda *_: make_private(url))
        sa.event.listen(engine, "connect", _prepare_sqlite)
    elif options.dialect == "mariadb":
        sa.event.listen(engine, "connect", partial(_prepare_mariadb, options.statement_timeout))
    elif pooled:
        heed(engine)
    if options.echo:
        # SQLAlchemy echoes only what it runs itself, as it does for whoever listens (see unit.py).
        sa.event.listen(engine, "before_cursor_execute", _hear)
    return engine


def _hear(*_: object) -> None:
    """Listen, and say nothing."""


def _connect_arguments(options: DatabaseOptions, url: sa.URL) -> dict[str, Any]:
    milliseconds = int(options.statement_timeout * 1000)
    if options.dialect == "sqlite":
        return {"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False}
    if options.dialect == "postgresql":
        settings = {
            "statement_timeout": milliseconds,
            "lock_timeout": LOCK_WAIT_SECONDS * 1000,
            "idle_in_transaction_session_timeout": IDLE_SECONDS * 1000,
            "timezone": "UTC",
        }
        return {
            "connect_timeout": max(int(options.connect_timeout), 2),
            "application_name": "morag-meta",
            # Behind the URL's own, of which an argument here would leave nothing.
            "options": " ".join(
                [
                    *url.normalized_query.get("options", ()),
                    *(f"-c {name}={value}" for name, value in settings.items()),
                ]
            ),
        }
    return {
        "connect_timeout": int(options.connect_timeout),
        "read_timeout": options.connect_timeout,  # of the handshake; statements get more below
        "write_timeout": options.connect_timeout,
        "charset": "utf8mb4",
    }


def _prepare_mariadb(limit: float, connection: Any, record: object) -> None:
    """Read committed, strict, in UTC; a statement ends after ``limit`` seconds (MySQL: if it reads).

    On MariaDB a silent transaction ends too.
    """
    del record
    # The watchdog cuts a silent connection first; PyMySQL has no public name for these.
    connection._read_timeout = connection._write_timeout = limit + 5.0  # noqa: SLF001
    is_mariadb = "mariadb" in connection.get_server_info().lower()
    if is_mariadb:
        limits = f"max_statement_time = {limit}, idle_transaction_timeout = {IDLE_SECONDS}"
    else:
        limits = f"max_execution_time = {limit * 1000:.0f}"
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute(
            "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
            f"innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, {limits}"
        )


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    """Write-ahead logging, so that readers never wait for a writer; foreign keys on."""
    del record
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = NORMAL")
        if cursor.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            cursor.execute("PRAGMA journal_mode = WAL")
    finally:
        cursor.close()
