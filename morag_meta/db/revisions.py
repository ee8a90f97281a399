"""The revisions that this code carries: where they are, their order, and running them through Alembic.

What a caller asks for stands in ``db/migrate.py``; the lock of a run in ``db/migration_lock.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import pathlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from morag_meta.db.migration_lock import MigrationError

_PACKAGE: Final = pathlib.Path(__file__).resolve().parent.parent
# Alembic hands a running migration its context through module globals.
_ALEMBIC: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of the history."""

    id: str
    previous: str | None
    message: str


class Revisions:
    """The revisions of one folder, this version's own unless another is given."""

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        """Read the folder.

        Raises:
            MigrationError: it is missing, or its revisions do not end in a single one.
        """
        self._folder = folder or _own_folder()
        try:
            self._scripts = ScriptDirectory.from_config(self._config())
            heads = self._scripts.get_heads()
        except CommandError as error:
            raise MigrationError("the migrations are missing from this installation") from error
        if len(heads) != 1:
            raise MigrationError(f"the migrations must end in one revision, not in {len(heads)}")
        self.newest = heads[0]

    def knows(self, revision: str) -> bool:
        """Say whether the revision is one of these."""
        return any(each.id == revision for each in self.all())

    def all(self) -> list[Revision]:
        """List the revisions, newest first."""
        return [_described(script) for script in self._scripts.walk_revisions()]

    def after(self, revision: str | None) -> list[str]:
        """List the ids of the revisions that follow this one, oldest first."""
        later = self._scripts.iterate_revisions(self.newest, revision or "base")
        return [script.revision for script in later][::-1]

    def upgrade(self, connection: sa.Connection, target: str) -> list[str]:
        """Run the revisions up to ``target``, and give the ids of those that ran."""
        done: list[str] = []
        with _alembic():
            command.upgrade(self._config(connection=connection, done=done), target)
        return done

    def downgrade(self, connection: sa.Connection, target: str) -> list[str]:
        """Undo the revisions down to ``target``, and give the ids of those undone."""
        done: list[str] = []
        with _alembic():
            command.downgrade(self._config(connection=connection, done=done), target)
        return done

    def sql(self, dialect: str, *, down: bool) -> str:
        """Write the SQL of every revision, up from nothing or down to it."""
        config = self._config(dialect=dialect)
        config.output_buffer = io.StringIO()
        with _alembic():
            if down:
                command.downgrade(config, f"{self.newest}:base", sql=True)
            else:
                command.upgrade(config, self.newest, sql=True)
        return config.output_buffer.getvalue()

    def write(self, message: str, connection: sa.Connection | None) -> pathlib.Path:
        """Write a new revision's file; with a connection, holding how the tables differ from its own."""
        if self._folder == _PACKAGE / "migrations":
            raise MigrationError("a revision is written in a checkout, not in an installed package")
        number = max((int(each.id) for each in self.all() if each.id.isdigit()), default=0) + 1
        config = self._config(connection=connection)
        with _alembic():
            made = command.revision(
                config, message, autogenerate=connection is not None, rev_id=f"{number:04d}"
            )
        return pathlib.Path(next(script.path for script in _each(made)))

    def _config(self, **attributes: Any) -> Config:
        quiet = argparse.Namespace(quiet=True)
        config = Config(cmd_opts=quiet, stdout=io.StringIO(), attributes=attributes)
        config.set_main_option("script_location", str(self._folder).replace("%", "%%"))
        config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
        return config


def _own_folder() -> pathlib.Path:
    """Find the revisions: within an installed package, else beside the package in a checkout."""
    installed = _PACKAGE / "migrations"
    return installed if installed.is_dir() else _PACKAGE.parent / "migrations"


def _described(script: Script) -> Revision:
    previous = script.down_revision
    subject = (script.doc.splitlines() or [""])[0].rstrip(".")
    return Revision(script.revision, previous if isinstance(previous, str) else None, subject)


def _each(made: Script | list[Script | None] | None) -> Iterator[Script]:
    for script in made if isinstance(made, list) else [made]:
        if script is not None:
            yield script


@contextlib.contextmanager
def _alembic() -> Iterator[None]:
    try:
        with _ALEMBIC:
            yield
    except CommandError as error:
        raise MigrationError(str(error)) from error
