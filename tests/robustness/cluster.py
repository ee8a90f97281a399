"""What a run breaks: a database, servers before it, relays between them, and users with keys."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from morag_meta.auth.keys import KeyHasher, new_key, prefix_of
from morag_meta.auth.principal import Role
from morag_meta.auth.secret import RootSecret
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.db.schema import documents, job_events, job_log, jobs
from morag_meta.users.actions import create_user
from tests.backends.daemon import Daemon
from tests.backends.databases import SERVERS, ServerDatabases, SqliteFiles
from tests.processes import ServerProcess
from tests.robustness.history import Record
from tests.robustness.recorder import document_of_row, event_of_row, job_of_row
from tests.robustness.relay import Relay
from tests.service import SECRET_KEY

TENANTS = 3
MOST_CONNECTIONS = 60
SETTINGS: dict[str, object] = {
    "stream_heartbeat": 0.5,
    "stream_poll_interval": 0.1,
    "stream_write_timeout": 5,
    "lease_duration": 2,
    "remote_fallback": 1,
    "retry_backoff": 0.1,
    "retry_backoff_limit": 0.4,
    "reaper_interval": 0.1,
    "database_statement_timeout": 5,
    "database_connect_timeout": 2,
    "shutdown_grace": 3,
    "bcrypt_cost": 10,
}
"""Short times, so that what takes minutes in service happens in seconds."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A user, and a key of theirs."""

    id: str
    key: str


class Cluster:
    """What a run needs: use :func:`cluster`."""

    def __init__(self, kind: str, url: str, daemon: Daemon | None, folder: Path) -> None:
        """Migrate the database, and make users in it."""
        self.kind = kind
        self.url = url
        self.daemon = daemon
        self.folder = folder
        self.servers: list[ServerProcess] = []
        self.fronts: list[Relay] = []
        """The relays between clients and servers, in the order of the servers."""
        self.back: Relay | None = None
        """The relay between the servers and the database."""
        self.archive: dict[tuple[str, int], Record] = {}
        """Events that were read before they were trimmed."""
        migrate.upgrade(url)
        self.database = Database.open(url)
        self.admin, *self.tenants = self._make_users()

    def _make_users(self) -> list[Tenant]:
        hasher = KeyHasher(RootSecret.from_text(SECRET_KEY).subkey("api-key"))
        made = []
        with self.database.unit_of_work() as uow:
            for number in range(TENANTS + 1):
                role = Role.USER if number else Role.ADMIN
                email = f"user{number}@robustness.test"
                owner = create_user(uow, name="Tenant", email=email, role=role)
                key = new_key()
                uow.api_keys.add(
                    owner["id"],
                    name="robustness",
                    description="",
                    key_hash=hasher.digest(key),
                    key_prefix=prefix_of(key),
                    scopes=["*"] if number else ["*", "jobs:work:all"],
                    expire_time=None,
                )
                made.append(Tenant(owner["id"], key))
            uow.commit()
        return made

    def start(self, count: int, *, fronts: bool, back: bool) -> None:
        """Start servers; with ``fronts`` and ``back`` they have relays before and behind them."""
        url = self.url
        if back and self.daemon is not None:
            self.back = Relay(url)
            url = self.back.url
        for number in range(count):
            server = ServerProcess(url, self.folder / f"server-{number}.log", **SETTINGS)
            self.servers.append(server)
            server.start()
            if fronts:
                self.fronts.append(Relay(f"tcp://{server.target}"))

    @property
    def targets(self) -> list[str]:
        """Where clients find the servers."""
        if not self.fronts:
            return [server.target for server in self.servers]
        return [f"127.0.0.1:{front.port}" for front in self.fronts]

    @property
    def relays(self) -> list[Relay]:
        """All that stands between two parties."""
        return [*self.fronts, *([self.back] if self.back else [])]

    def heal(self) -> None:
        """Undo whatever a fault left: everything runs, and everything flows."""
        if self.daemon is not None:
            self.daemon.resume()
            if not self.daemon.running:
                self.daemon.start()
        for relay in self.relays:
            relay.refuse(refusing=False)
            relay.cut_at(b"", arrives=True)
            relay.flow()
        for server in self.servers:
            if server.process.poll() is not None:
                server.start()

    def rows(self, statement: sa.Select[Any], patience: float = 30) -> list[Any]:
        """Read rows past all relays, as soon as the database answers."""
        limit = time.monotonic() + patience
        while True:
            try:
                with self.database.unit_of_work() as uow:
                    return list(uow.all(statement))
            except Exception:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.1)

    def progress(self) -> tuple[int, int, int]:
        """Give how many events have a place in the log, how many have none, and how many jobs are open."""
        (log,) = self.rows(sa.select(job_log.c.position))
        waiting = sa.select(sa.func.count().label("count")).select_from(job_events)
        (unnumbered,) = self.rows(waiting.where(job_events.c.position.is_(None)))
        opened = sa.select(sa.func.count().label("count")).select_from(jobs)
        (still,) = self.rows(opened.where(jobs.c.end_time.is_(None)))
        return log["position"], unnumbered["count"], still["count"]

    def keep_events(self) -> None:
        """Read the events that there are, for when they are gone."""
        for row in self.rows(sa.select(job_events).where(job_events.c.position.is_not(None))):
            event = event_of_row(row)
            self.archive[event.job_id, event.number] = event

    def tables(self) -> list[Record]:
        """Read what the tables hold in the end, with the events that were kept before."""
        kept = dict(self.archive)
        for row in self.rows(sa.select(job_events)):
            event = event_of_row(row)
            kept[event.job_id, event.number] = event
        found: list[Record] = list(kept.values())
        found += [job_of_row(row) for row in self.rows(sa.select(jobs))]
        return found + [document_of_row(row) for row in self.rows(sa.select(documents))]

    def close(self) -> None:
        """Stop everything."""
        for server in self.servers:
            server.close()
        for relay in self.relays:
            relay.close()
        self.database.close()


@contextlib.contextmanager
def cluster(kind: str, folder: Path, *, servers: int, fronts: bool, back: bool) -> Iterator[Cluster]:
    """Start a database of a kind, and servers; stop all of it at the end."""
    with ExitStack() as stack:
        daemon: Daemon | None = None
        if kind in SERVERS:
            daemon = stack.enter_context(SERVERS[kind](f"max_connections={MOST_CONNECTIONS}"))
            url = ServerDatabases(daemon).new_url()
        else:
            url = SqliteFiles(folder).new_url()
        made = Cluster(kind, url, daemon, folder)
        stack.callback(made.close)
        made.start(servers, fronts=fronts, back=back)
        yield made
