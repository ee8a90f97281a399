"""Server processes that stand amid a transaction, as the test holds a row that they come to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from morag_meta.db.database import Database
from tests.processes import ServerProcess

_WAITING = {
    "postgresql": (
        "SELECT client_port FROM pg_stat_activity"
        " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
    ),
    "mariadb": (
        "SELECT substring_index(host, ':', -1) FROM information_schema.innodb_trx"
        " JOIN information_schema.processlist ON id = trx_mysql_thread_id"
        " WHERE trx_state = 'LOCK WAIT' AND db = database()"
    ),
}


@contextmanager
def barrier(database: Database, rows: sa.Select[Any]) -> Iterator[list[sa.Row[Any]]]:
    """Hold rows for the length of a block, and give them as they were when they were taken."""
    with database.unit_of_work() as uow:
        yield list(uow.connection.execute(rows.with_for_update()))


def who_stands(database: Database, servers: Sequence[ServerProcess]) -> ServerProcess:
    """Wait until one of the processes waits for a row, and give it."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        time.sleep(0.15)  # MariaDB looks ten times a second at most
        with database.engine.connect() as connection:
            ports = connection.exec_driver_sql(_WAITING[database.dialect]).scalars().all()
        for server in servers:
            if server.process.poll() is None and _ports(server.process.pid) & set(map(int, ports)):
                return server
    raise AssertionError("nobody came to the row")


def _ports(pid: int) -> set[int]:
    """Give the ports of the connections that a process has."""
    sockets = set()
    for opened in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(opened.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        for line in lines:
            fields = line.split()
            if f"socket:[{fields[9]}]" in sockets:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped, and has come to a halt."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def stop(server: ServerProcess, signal: int) -> None:
    """Send a process SIGSTOP or SIGKILL, and wait until it has come to a halt."""
    pid = server.process.pid
    os.kill(pid, signal)
    while server.process.poll() is None and not is_stopped(pid):
        time.sleep(0.005)
