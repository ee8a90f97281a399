"""Real server processes, for tests that kill, pause or restart them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.secret import RootSecret
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.users.actions import create_user
from tests.backends.daemon import free_port
from tests.backends.walled import settings_of
from tests.leaks.watching import note_log
from tests.service import CREDENTIAL_KEYS, SECRET_KEY, add_key


def prepare(url: str) -> str:
    """Migrate a database, and give the API key of a new user in it."""
    migrate.upgrade(url)
    database = Database.open(url)
    hasher = KeyHasher(RootSecret.from_text(SECRET_KEY).subkey("api-key"))
    with database.unit_of_work() as uow:
        owner = create_user(uow, name="Worker", email="worker@processes.test")
        _, key = add_key(uow.api_keys, hasher, owner["id"])
        uow.commit()
    database.close()
    return key


class ServerProcess:
    """``morag-meta serve`` on a port of its own, which stays its port when it is started again."""

    def __init__(self, url: str, log: Path, **settings: object) -> None:
        """Prepare; ``settings`` become MORAG_ variables, and what the process says goes to ``log``."""
        self.target = f"127.0.0.1:{free_port()}"
        self._log = log
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MORAG_")
        }
        self.environment |= {
            "MORAG_DATABASE_URL": url,
            "MORAG_GRPC_ADDRESS": self.target,
            "MORAG_SECRET_KEY": SECRET_KEY,
            "MORAG_CREDENTIAL_KEYS": CREDENTIAL_KEYS,
            "MORAG_LOG_LEVEL": "WARNING",
        }
        self.environment |= {f"MORAG_{name}": value for name, value in settings_of(url).items()}
        self.environment |= {f"MORAG_{name.upper()}": str(value) for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started last."""
        assert self._process is not None
        return self._process

    def start(self, timeout: float = 30.0) -> None:
        """Start, and wait until it serves."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "morag_meta", "serve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + timeout
        while True:
            with grpc.insecure_channel(self.target) as channel:
                try:
                    grpc.channel_ready_future(channel).result(0.5)
                    return
                except grpc.FutureTimeoutError:
                    assert self.process.poll() is None, self._said()
                    assert time.monotonic() < end, self._said()

    def _said(self) -> str:
        with self._log.open("rb") as log:  # which may be a device without an end
            return log.read(100_000).decode(errors="replace")

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout: float = 20.0) -> int:
        """Ask it to end, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def close(self) -> None:
        """Make sure that nothing is left of it."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        note_log(self._log)


@contextmanager
def running(url: str, log: Path) -> Iterator[tuple[ServerProcess, str]]:
    """Prepare a database, and give a running server on it with its user's key; at the end it is killed."""
    key = prepare(url)
    started = ServerProcess(url, log)
    started.start()
    try:
        yield started, key
    finally:
        started.close()
