"""Bringing a database to a revision, and saying where it stands: plain functions over a URL.

``serve`` calls them at its start, the command line for ``db``. The revisions are Alembic's, in
``migrations/``; the lock under which they run stands in ``db/migration_lock.py``, what a revision is made
of in ``db/migration_steps.py``, and the comparison of a database with the tables in
``db/differences.py``.

Every function raises UrlError for a URL that cannot be used, and MigrationError for a database that
cannot be reached.
"""

from __future__ import annotations

import argparse
import contextlib
import enum
import io
import pathlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from morag_meta.db.migration_lock import (
    LOCK_WAIT_SECONDS,
    MigrationError,
    MigrationLocked,
    SchemaAhead,
    is_missing,
    migrating,
    reading,
)
from morag_meta.db.schema import metadata
from morag_meta.db.url import masked

__all__ = [
    "MigrationError",
    "MigrationLocked",
    "Revision",
    "SchemaAhead",
    "State",
    "Status",
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

VERSION_TABLE: Final = "alembic_version"
OFFLINE_DIALECTS: Final = ("sqlite", "postgresql", "mariadb", "mysql")
_PACKAGE: Final = pathlib.Path(__file__).resolve().parent.parent
# Alembic hands a running migration its context through module globals.
_ALEMBIC: Final = threading.Lock()


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


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of the history."""

    id: str
    previous: str | None
    message: str


def upgrade(
    url: str | sa.URL,
    revision: str = "head",
    *,
    wait: float = LOCK_WAIT_SECONDS,
    migrations: pathlib.Path | None = None,
) -> list[str]:
    """Bring the database forward, and give the revisions that this call applied, oldest first.

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
    config = _config(migrations)
    before = _status(url, config)
    _refuse_ahead(url, before.current, _scripts(config))
    if revision == "head" and before.state is State.CURRENT:
        return []
    return _run(url, config, wait, lambda: command.upgrade(config, revision))


def downgrade(
    url: str | sa.URL,
    revision: str,
    *,
    wait: float = LOCK_WAIT_SECONDS,
    migrations: pathlib.Path | None = None,
) -> list[str]:
    """Take the database back, rows and all, and give the revisions undone, newest first.

    Args:
        url: the database.
        revision: the revision to end at; ``base`` for none, ``-1`` for one back.
        wait: seconds to wait for another process that migrates.
        migrations: a folder of revisions other than this version's own.

    Raises:
        SchemaAhead, MigrationLocked, MigrationError: as ``upgrade``.
    """
    config = _config(migrations)
    if is_missing(url):
        return []
    return _run(url, config, wait, lambda: command.downgrade(config, revision))


def current(url: str | sa.URL) -> str | None:
    """Give the revision the database is at, or None before the first."""
    if is_missing(url):
        return None
    with reading(url) as connection:
        return _revision_of(connection)


def head(*, migrations: pathlib.Path | None = None) -> str:
    """Give the newest revision that this code knows."""
    return _head(_scripts(_config(migrations)))


def history(*, migrations: pathlib.Path | None = None) -> list[Revision]:
    """List the revisions that this code knows, newest first."""
    scripts = _scripts(_config(migrations))
    return [_described(script) for script in scripts.walk_revisions()]


def status(url: str | sa.URL, *, migrations: pathlib.Path | None = None) -> Status:
    """Say where the database stands; takes no lock, and makes no SQLite file that is not there."""
    return _status(url, _config(migrations))


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
    config = _config(migrations)
    config.output_buffer = io.StringIO()
    config.attributes["dialect"] = dialect
    with _alembic():
        if down:
            command.downgrade(config, f"{_head(_scripts(config))}:base", sql=True)
        else:
            command.upgrade(config, "head", sql=True)
    return config.output_buffer.getvalue()


def revision(message: str, url: str | sa.URL | None = None) -> pathlib.Path:
    """Write a new revision into the checkout's ``migrations/versions``, and give its path.

    Args:
        message: what it does, in a few words; the file's name is made of it.
        url: a database at the newest revision to compare with the tables, so that the revision starts out
            with their difference; without it the revision is empty.

    Raises:
        MigrationError: not in a checkout, or the database is not at the newest revision.
    """
    config = _config(None)
    if _location() == _PACKAGE / "migrations":
        raise MigrationError("a revision is written in a checkout, not in an installed package")
    number = f"{max((int(each.id) for each in history() if each.id.isdigit()), default=0) + 1:04d}"
    with contextlib.ExitStack() as stack:
        if url is not None:
            config.attributes["connection"] = stack.enter_context(reading(url))
        stack.enter_context(_alembic())
        made = command.revision(config, message, autogenerate=url is not None, rev_id=number)
    assert isinstance(made, Script)  # noqa: S101 - a list comes back for several heads alone
    return pathlib.Path(made.path)


def reset(url: str | sa.URL, *, wait: float = LOCK_WAIT_SECONDS) -> list[str]:
    """Drop every table of this service with its rows, and give their names; other tables stay.

    Raises:
        SchemaAhead: newer code made the database; only that code knows what is to be dropped.
        MigrationLocked: another process migrated for longer than ``wait``.
    """
    scripts = _scripts(_config(None))
    if is_missing(url):
        return []
    with migrating(url, wait) as connection:
        _refuse_ahead(url, _revision_of(connection), scripts)
        present = set(sa.inspect(connection).get_table_names())
        doomed = [table for table in reversed(metadata.sorted_tables) if table.name in present]
        for table in doomed:
            connection.execute(sa.schema.DropTable(table))
        if VERSION_TABLE in present:
            connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}")
    return [table.name for table in doomed]


def _location() -> pathlib.Path:
    """Find the revisions: within an installed package, else beside the package in a checkout."""
    installed = _PACKAGE / "migrations"
    return installed if installed.is_dir() else _PACKAGE.parent / "migrations"


def _config(migrations: pathlib.Path | None) -> Config:
    config = Config(cmd_opts=argparse.Namespace(quiet=True), stdout=io.StringIO())
    location = str(migrations or _location()).replace("%", "%%")
    config.set_main_option("script_location", location)
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config


def _scripts(config: Config) -> ScriptDirectory:
    try:
        return ScriptDirectory.from_config(config)
    except CommandError as error:
        raise MigrationError("the migrations are missing from this installation") from error


def _head(scripts: ScriptDirectory) -> str:
    heads = scripts.get_heads()
    if len(heads) != 1:
        raise MigrationError(f"the migrations must end in one revision, not in {', '.join(heads) or 'none'}")
    return heads[0]


def _described(script: Script) -> Revision:
    previous = script.down_revision
    subject = (script.doc.splitlines() or [""])[0].rstrip(".")
    return Revision(script.revision, previous if isinstance(previous, str) else None, subject)


def _revision_of(connection: sa.Connection) -> str | None:
    found = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads()
    if connection.dialect.name == "mysql":
        # What was begun by reading, Alembic would take for a transaction that its caller commits.
        connection.rollback()
    if len(found) > 1:
        raise MigrationError(f"the database claims several revisions: {', '.join(found)}")
    return found[0] if found else None


def _knows(scripts: ScriptDirectory, revision: str) -> bool:
    return any(script.revision == revision for script in scripts.walk_revisions())


def _refuse_ahead(url: str | sa.URL, revision: str | None, scripts: ScriptDirectory) -> None:
    if revision is not None and not _knows(scripts, revision):
        raise SchemaAhead(
            f"{masked(url)} is at revision {revision}, which this version does not know (it ends at "
            f"{_head(scripts)}): run the newer version, or downgrade the database with it first"
        )


def _status(url: str | sa.URL, config: Config) -> Status:
    scripts = _scripts(config)
    newest = _head(scripts)
    at = current(url)
    if at is not None and not _knows(scripts, at):
        return Status(at, newest, [], State.AHEAD)
    pending = [script.revision for script in scripts.iterate_revisions(newest, at or "base")][::-1]
    if not pending:
        return Status(at, newest, [], State.CURRENT)
    return Status(at, newest, pending, State.EMPTY if at is None else State.BEHIND)


def _run(url: str | sa.URL, config: Config, wait: float, act: Callable[[], None]) -> list[str]:
    done: list[str] = []
    scripts = _scripts(config)
    with migrating(url, wait) as connection:
        _refuse_ahead(url, _revision_of(connection), scripts)
        config.attributes |= {"connection": connection, "done": done}
        with _alembic():
            act()
    return done


@contextlib.contextmanager
def _alembic() -> Iterator[None]:
    try:
        with _ALEMBIC:
            yield
    except CommandError as error:
        raise MigrationError(str(error)) from error
