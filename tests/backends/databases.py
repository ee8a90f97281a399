"""The three kinds of database that a test may run on, behind one face."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.backends.daemon import Daemon
from tests.backends.mariadb import MariadbServer, find_server
from tests.backends.postgresql import PostgresqlServer
from tests.backends.walled import IS_ON, Walls

SERVERS: dict[str, type[Daemon]] = {"postgresql": PostgresqlServer, "mariadb": MariadbServer}
EVERY_KIND = ("sqlite", *SERVERS)


class Backend(Protocol):
    """Where a test gets databases of one kind."""

    @property
    def name(self) -> str:
        """``sqlite``, ``postgresql`` or ``mariadb``."""

    def new_url(self) -> str:
        """Return the URL of a fresh database, as a user would write it; empty but with row security."""

    def new_empty_url(self) -> str:
        """Return the URL of a fresh, empty database, for whoever migrates it."""

    def drop(self, url: str) -> None:
        """Remove a database that :meth:`new_url` made, whoever is connected."""


class SqliteFiles:
    """SQLite databases, one file each, in a folder that goes at the end."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    def new_url(self) -> str:
        """Return the URL of a file that does not exist yet, alone in its folder."""
        home = self._folder / str(next(self._numbers))
        home.mkdir()
        return f"sqlite:///{home / 'morag.db'}"

    new_empty_url = new_url

    def drop(self, url: str) -> None:
        """Remove the file and what stands beside it."""
        shutil.rmtree(Path(url.removeprefix("sqlite:///")).parent, ignore_errors=True)


class ServerDatabases:
    """The databases of one server."""

    def __init__(self, server: Daemon) -> None:
        self.server = server
        self.name = server.dialect
        self._walls = Walls(server) if IS_ON and isinstance(server, PostgresqlServer) else None

    def new_url(self) -> str:
        """Create a database and return its URL."""
        return self.server.create_database() if self._walls is None else self._walls.new_url()

    def new_empty_url(self) -> str:
        """Create an empty database and return its URL."""
        return self.server.create_database() if self._walls is None else self._walls.new_empty_url()

    def drop(self, url: str) -> None:
        """Remove the database."""
        self.server.drop_database(url)


@contextmanager
def open_backend(name: str) -> Iterator[Backend]:
    """Start what a kind of database needs, and take it away at the end."""
    if name == "sqlite":
        folder = Path(tempfile.mkdtemp(prefix="morag-sqlite-"))
        try:
            yield SqliteFiles(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    with SERVERS[name]() as server:
        yield ServerDatabases(server)


def chosen_kinds() -> list[str]:
    """Return the kinds that this run covers: ``MORAG_TEST_DATABASES``, less a MariaDB not installed.

    With row security it is PostgreSQL alone.

    Raises:
        ValueError: the variable names what is none of them.

    """
    if IS_ON:
        return ["postgresql"]
    wanted = os.environ.get("MORAG_TEST_DATABASES", ",".join(EVERY_KIND)).replace(" ", "").split(",")
    if unknown := set(wanted) - set(EVERY_KIND):
        raise ValueError(
            f"MORAG_TEST_DATABASES names {sorted(unknown)}; give some of {', '.join(EVERY_KIND)}"
        )
    return [
        kind for kind in EVERY_KIND if kind in wanted and (kind != "mariadb" or find_server() is not None)
    ]
