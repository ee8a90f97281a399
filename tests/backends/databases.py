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

import sqlalchemy as sa

from tests.backends.daemon import Daemon
from tests.backends.mariadb import MariadbServer, find_server
from tests.backends.postgresql import PostgresqlServer
from tests.backends.walled import IS_ON, Walls
from tests.leaks.databases import check_files, check_rows

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
        """Remove the file and what stands beside it, in which no secret is."""
        home = Path(url.removeprefix("sqlite:///")).parent
        try:
            check_files(home)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def check(self) -> None:
        """Look for secrets in what was not removed yet."""
        for home in self._folder.iterdir():
            check_files(home)


class ServerDatabases:
    """The databases of one server."""

    def __init__(self, server: Daemon) -> None:
        self.server = server
        self.name = server.dialect
        self._walls = Walls(server) if IS_ON and isinstance(server, PostgresqlServer) else None
        self._urls: set[str] = set()

    def new_url(self) -> str:
        """Create a database and return its URL."""
        return self._kept(self.server.create_database() if self._walls is None else self._walls.new_url())

    def new_empty_url(self) -> str:
        """Create an empty database and return its URL."""
        made = self.server.create_database() if self._walls is None else self._walls.new_empty_url()
        return self._kept(made)

    def drop(self, url: str) -> None:
        """Remove a database of the server, whoever made it, in which no secret is."""
        self._urls.discard(url)
        try:
            check_rows(self._past_walls(url))
        finally:
            self.server.drop_database(url)

    def check(self) -> None:
        """Look for secrets in what was not removed yet."""
        for url in self._urls:
            check_rows(self._past_walls(url))

    def _kept(self, url: str) -> str:
        self._urls.add(url)
        return url

    def _past_walls(self, url: str) -> str:
        """Give the administrator's URL of a database: the service's own may not see every row."""
        name = sa.make_url(url).database
        return sa.make_url(self.server.url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def open_backend(name: str) -> Iterator[Backend]:
    """Start what a kind of database needs, and take it away at the end."""
    if name == "sqlite":
        folder = Path(tempfile.mkdtemp(prefix="morag-sqlite-"))
        files = SqliteFiles(folder)
        try:
            yield files
            files.check()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    with SERVERS[name]() as server:
        databases = ServerDatabases(server)
        yield databases
        databases.check()


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
