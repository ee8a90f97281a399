"""A throwaway MariaDB, from the system's binaries. No wheel carries one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymysql

from tests.backends.daemon import Daemon, dies_with_us, run

_USER = "morag"


def find_server() -> str | None:
    """Return the path of ``mariadbd``, or None where MariaDB is not installed."""
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class MariadbServer(Daemon):
    """A MariaDB of its own, on a free port of the loopback.

    It writes without syncing: it survives :meth:`kill`, not the machine's fall.
    """

    dialect = "mariadb"
    _ending = signal.SIGTERM

    def _prepare(self, options: Sequence[str]) -> list[str]:
        server, installer = find_server(), shutil.which("mariadb-install-db")
        if server is None or installer is None:
            raise RuntimeError("no MariaDB: install the package mariadb-server")
        data = f"--datadir={self._folder / 'data'}"
        # As root the server must be told so; anybody else runs it as themselves.
        identity = ["--user=root"] if os.geteuid() == 0 else []
        normal = "--auth-root-authentication-method=normal"
        # A server that starts removes all temporary tables that it finds, in a shared place others' as well.
        own = self._folder / "tmp"
        own.mkdir()
        run(["env", f"TMPDIR={own}", installer, "--no-defaults", *identity, data, normal, "--skip-test-db"])
        settings = [
            f"port={self.port}",
            "bind-address=127.0.0.1",
            f"socket={self._folder / 'socket'}",
            f"tmpdir={own}",
            f"pid-file={self._folder / 'pid'}",
            f"init-file={self._write_accounts()}",
            "skip-name-resolve",
            "innodb-flush-log-at-trx-commit=2",
            "innodb-buffer-pool-size=64M",
            "debug-no-sync",
            *options,
        ]
        command = [*dies_with_us(self._ending), server, "--no-defaults", *identity, data]
        return command + [f"--{setting}" for setting in settings]

    def _write_accounts(self) -> Path:
        """Write what leaves one account that can enter by TCP; the server runs it at each start."""
        accounts = self._folder / "accounts.sql"
        accounts.write_text(
            "DROP USER IF EXISTS root@'127.0.0.1', root@'::1';\n"
            f"CREATE OR REPLACE USER {_USER}@'127.0.0.1' IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON *.* TO {_USER}@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        return accounts

    @property
    def url(self) -> str:
        """The URL of the administrator's own database."""
        return self._url("mysql")

    def _url(self, database: str) -> str:
        return f"mariadb://{_USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Create a database and return its URL."""
        name = f"morag_{next(self._databases)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin")
        return self._url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database that :meth:`create_database` made; who is connected is cut off first.

        Without that, a transaction left open would hold the removal up for good.
        """
        name = url.rpartition("/")[2]
        for (connection,) in self.execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{name}' AND id <> connection_id()"
        ):
            self.execute(f"KILL HARD CONNECTION {connection}", missing=1094)
        self.execute(f"DROP DATABASE IF EXISTS {name}")

    def execute(self, statement: str, *, missing: int = 0) -> list[tuple[Any, ...]]:
        """Run one statement as administrator and return its rows; the error ``missing`` is no error."""
        connection = self._connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        except pymysql.err.OperationalError as error:
            if missing and error.args[0] == missing:
                return []
            raise
        finally:
            connection.close()

    def _connect(self) -> pymysql.Connection[Any]:
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=_USER,
            password=self._password,
            autocommit=True,
            connect_timeout=2,
            read_timeout=30,
        )

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except pymysql.err.OperationalError:
            return False
        return True
