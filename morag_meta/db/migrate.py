"""Bringing a database to a revision, and saying where it stands: plain functions over a URL.

``serve`` calls them at its start, the command line for ``db``. The revisions are Alembic's, in
``migrations/``; the lock under which they run stands in ``db/migration_lock.py``, what a revision is made
of in ``db/migration_steps.py``, and the comparison of a database with the tables in
``db/differences.py``.

Every function raises UrlError for a URL that cannot be used, and MigrationError for a database that
cannot be reached.
"""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from alembic.migration import MigrationContext

from morag_meta.db import row_security
from morag_meta.db.differences import differences
from morag_meta.db.migration_lock import (
    LOCK_WAIT_SECONDS,
    MigrationError,
    MigrationLocked,
    SchemaAhead,
    migrating,
    reading,
)
from morag_meta.db.revisions import Revision, Revisions
from morag_meta.db.schema import metadata
from morag_meta.db.sqlite_file import is_missing
from morag_meta.db.url import masked

__all__ = [
    "OFFLINE_DIALECTS",
    "MigrationError",
    "MigrationLocked",
    "Revision",
    "SchemaAhead",
    "State",
    "Status",
    "check_differences",
    "current",
    "downgrade",
    "head",
    "history",
    "offline_sql",
    "reset",
    "revision",
    "status",
    "upgrade",
]

OFFLINE_DIALECTS: Final = ("sqlite", "postgresql", "mariadb", "mysql")
_VERSION_TABLE: Final = "alembic_version"


class State(enum.StrEnum):
    """How a database's schema stands to this version of the code."""

    EMPTY = "EMPTY"  # no revision yet
    BEHIND = "BEHIND"
    CURRENT = "CURRENT"
    AHEAD = "AHEAD"  # a revision that this code does not know


@dataclass(frozen=True, slots=True)
class Status:
    """Where a database stands; ``pending`` lists the revisions to come, oldest first."""

    current: str | None
    head: str
    pending: list[str]
    state: State


def upgrade(
    url: str | sa.URL,
    revision: str = "head",
    *,
    wait: float = LOCK_WAIT_SECONDS,
    migrations: pathlib.Path | None = None,
) -> list[str]:
    """Bring the database forward, and give the revisions that this call applied, oldest first.

    Where row security is on, its policies follow once the schema is at the newest revision.

    Where nothing is to do no lock is taken. Any number of processes may call this at once: one applies,
    the others wait and then find nothing to do.

    Args:
        url: the database.
        revision: a revision's id, ``head``, or ``+1`` for the next.
        wait: seconds to wait for another process that migrates.
        migrations: a folder of revisions other than this version's own.

    Raises:
        SchemaAhead: the database is at a revision that this code does not know.
        MigrationLocked: another process migrated for longer than ``wait``.
        MigrationError: no such revision, or a step failed.
    """
    revisions = Revisions(migrations)
    at = current(url)
    _refuse_ahead(url, at, revisions)
    if revision in ("head", at) and at == revisions.newest:
        return []

    def act(connection: sa.Connection) -> list[str]:
        role = row_security.close(connection)
        done = revisions.upgrade(connection, revision)
        if _revision_of(connection) == revisions.newest:
            row_security.reopen(connection, role)
        return done

    return _locked(url, wait, revisions, act)


def downgrade(
    url: str | sa.URL,
    revision: str,
    *,
    wait: float = LOCK_WAIT_SECONDS,
    migrations: pathlib.Path | None = None,
) -> list[str]:
    """Take the database back, rows and all, and give the revisions undone, newest first.

    Where row security is on, it lets nothing pass afterwards: the version that knows the revision is to
    enable it again.

    Args:
        url: the database.
        revision: the revision to end at; ``base`` for none, ``-1`` for one back.
        wait: seconds to wait for another process that migrates.
        migrations: a folder of revisions other than this version's own.

    Raises:
        SchemaAhead, MigrationLocked, MigrationError: as ``upgrade``.
    """
    revisions = Revisions(migrations)
    if is_missing(url):
        return []

    def act(connection: sa.Connection) -> list[str]:
        row_security.close(connection)
        return revisions.downgrade(connection, revision)

    return _locked(url, wait, revisions, act)


def current(url: str | sa.URL) -> str | None:
    """Give the revision the database is at, or None before the first; makes no SQLite file."""
    if is_missing(url):
        return None
    with reading(url) as connection:
        return _revision_of(connection)


def status(url: str | sa.URL, *, migrations: pathlib.Path | None = None) -> Status:
    """Say where the database stands; takes no lock, and makes no SQLite file that is not there."""
    revisions = Revisions(migrations)
    at = current(url)
    if at is not None and not revisions.knows(at):
        return Status(at, revisions.newest, [], State.AHEAD)
    pending = revisions.after(at)
    if not pending:
        return Status(at, revisions.newest, [], State.CURRENT)
    return Status(at, revisions.newest, pending, State.EMPTY if at is None else State.BEHIND)


def head() -> str:
    """Give the newest revision that this code knows."""
    return Revisions().newest


def history() -> list[Revision]:
    """List the revisions that this code knows, newest first."""
    return Revisions().all()


def check_differences(url: str | sa.URL) -> list[str]:
    """List, a line each, how the database's tables differ from those of this code; empty when they agree.

    Tables that this code does not know are not looked at.
    """
    with reading(url) as connection:
        return differences(connection)


def offline_sql(dialect: str, *, down: bool = False, migrations: pathlib.Path | None = None) -> str:
    """Write the SQL of all revisions, up from an empty database or down to it, without a connection.

    Args:
        dialect: sqlite, postgresql, mariadb or mysql (MySQL 8).
        down: the way back.
        migrations: a folder of revisions other than this version's own.

    Raises:
        MigrationError: another dialect, or a revision that needs to look at the database.
    """
    if dialect not in OFFLINE_DIALECTS:
        raise MigrationError(f"no SQL for {dialect!r}; choose one of {', '.join(OFFLINE_DIALECTS)}")
    return Revisions(migrations).sql(dialect, down=down)


def revision(
    message: str, url: str | sa.URL | None = None, *, migrations: pathlib.Path | None = None
) -> pathlib.Path:
    """Write a new revision into the checkout's ``migrations/versions``, and give its path.

    Args:
        message: what it does, in a few words; the file's name is made of it.
        url: a database at the newest revision to compare with the tables, so that the revision starts out
            with their difference; without it the revision is empty.
        migrations: a folder of revisions other than this version's own.

    Raises:
        MigrationError: not in a checkout, or the database is not at the newest revision.
    """
    revisions = Revisions(migrations)
    if url is None:
        return revisions.write(message, None)
    with reading(url) as connection:
        return revisions.write(message, connection)


def reset(url: str | sa.URL, *, wait: float = LOCK_WAIT_SECONDS) -> list[str]:
    """Drop every table of this service with its rows, and give their names; other tables stay.

    Raises:
        SchemaAhead: newer code made the database; only that code knows what is to be dropped.
        MigrationLocked: another process migrated for longer than ``wait``.
    """
    return [] if is_missing(url) else _locked(url, wait, Revisions(), _drop_all)


def _drop_all(connection: sa.Connection) -> list[str]:
    present = set(sa.inspect(connection).get_table_names())
    if _VERSION_TABLE in present:
        # First, so that a reset killed half-way on MariaDB does not pass for a complete schema.
        connection.exec_driver_sql(f"DROP TABLE {_VERSION_TABLE}")
    doomed = [table for table in reversed(metadata.sorted_tables) if table.name in present]
    for table in doomed:
        connection.execute(sa.schema.DropTable(table))
    return [table.name for table in doomed]


def _locked(
    url: str | sa.URL, wait: float, revisions: Revisions, act: Callable[[sa.Connection], list[str]]
) -> list[str]:
    with migrating(url, wait) as connection:
        # Asked again: another process may have migrated while this one waited for the lock.
        _refuse_ahead(url, _revision_of(connection), revisions)
        return act(connection)


def _revision_of(connection: sa.Connection) -> str | None:
    found = MigrationContext.configure(connection, opts={"version_table": _VERSION_TABLE}).get_current_heads()
    if connection.dialect.name == "mysql":
        # What reading began, Alembic would take for a transaction that its caller commits.
        connection.rollback()
    if len(found) > 1:
        raise MigrationError(f"the database claims several revisions: {', '.join(found)}")
    return found[0] if found else None


def _refuse_ahead(url: str | sa.URL, at: str | None, revisions: Revisions) -> None:
    if at is not None and not revisions.knows(at):
        raise SchemaAhead(
            f"{masked(url)} is at revision {at}, which this version does not know (it ends at "
            f"{revisions.newest}): run the newer version, or downgrade the database with it first"
        )
