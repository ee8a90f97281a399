"""Notices between the processes that share a PostgreSQL: hints that something changed.

LISTEN and NOTIFY run on one connection of their own, in one thread: what this process committed is sent
in batches a few milliseconds later, never inside the writing transaction, where it would serialize all
commits. A notice may be lost; whoever hears it must be right without it.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import sqlalchemy as sa
import structlog

from morag_meta.db.engine import DatabaseOptions, make_engine
from morag_meta.db.watchdog import Watchdog, cut

_log = structlog.get_logger(__name__)
_CHANNEL: Final = "morag_meta"
_BATCH_SECONDS: Final = 0.003
_RETRY_SECONDS: Final = 1.0
_PING_SECONDS: Final = 5.0
_LONGEST: Final = 7000  # PostgreSQL refuses payloads of 8000 bytes
MOST_UNSENT: Final = 10_000
"""How many topics wait for a connection; more are forgotten, all of them."""


class _Line:
    """The connection as the watchdog sees it: busy since it was made, but for the waits for news."""

    def __init__(self) -> None:
        self.driver_connection: Any = None
        self.busy_since = 0.0

    @property
    def unit(self) -> _Line:
        return self

    def take(self, driver_connection: Any, record: object) -> None:
        """Watch a connection that was just made, and is about to be asked for the first time."""
        del record
        self.busy_since = time.monotonic()
        self.driver_connection = driver_connection

    def drop(self) -> None:
        """Watch nothing, as there is no connection."""
        self.busy_since, self.driver_connection = 0.0, None


class Notices:
    """The sending and hearing of one process."""

    def __init__(
        self, options: DatabaseOptions, hear: Callable[[Iterable[str]], None], prefix: str = ""
    ) -> None:
        """Tell ``hear``, in this thread, the topics that other processes changed.

        Only topics that begin with ``prefix`` are sent: those that somebody hears.
        """
        self._engine = make_engine(options, pooled=False)
        self._line = _Line()
        # Before SQLAlchemy's own listener, which asks the server what it is.
        sa.event.listen(self._engine, "connect", self._line.take, insert=True)
        self._watchdog = Watchdog(lambda: [self._line], options.statement_timeout + 2.0)
        self._hear = hear
        self._prefix = prefix
        self._lock = threading.Lock()
        self._unsent: dict[str, None] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._closed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def __len__(self) -> int:
        """Count the topics that wait to be sent."""
        return len(self._unsent)

    def start(self) -> None:
        """Begin to send and to hear."""
        self._watchdog.start()
        self._thread.start()

    def send(self, topics: Iterable[str]) -> None:
        """Have other processes told of topics; returns at once, from any thread."""
        told = dict.fromkeys(topic for topic in topics if topic.startswith(self._prefix))
        if not told:
            return
        with self._lock:
            wakes = not self._unsent  # otherwise the thread was woken for those that wait
            if len(self._unsent) + len(told) > MOST_UNSENT:
                self._unsent.clear()
            self._unsent.update(told)
            if wakes:
                self._wake()

    def stop(self) -> None:
        """End the thread and its connection, also where the server does not answer."""
        self._stop.set()
        with self._lock:
            self._wake()
        self._thread.join(1.0)
        if self._thread.is_alive():
            with contextlib.suppress(Exception):
                cut(self._line.driver_connection)
            self._thread.join(2.0)
        self._watchdog.stop()

    def _wake(self) -> None:
        """Wake the thread, unless it has ended and its pipe with it; the lock is held."""
        if not self._closed:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_write, b"!")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._engine.connect() as connection:
                    self._serve(connection)
            except Exception as fault:  # noqa: BLE001 - hints only: the poller is the truth
                _log.info("notices interrupted", error=type(fault).__name__)
                self._stop.wait(_RETRY_SECONDS)
            finally:
                self._line.drop()
        self._engine.dispose()
        with self._lock:
            self._closed = True
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _serve(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        poll = select.poll()  # select() takes no descriptor from 1024 on
        poll.register(driver.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        with driver.cursor() as cursor:
            cursor.execute(f"LISTEN {_CHANNEL}")
            self._send_all(cursor)
            while not self._stop.is_set():
                self._line.busy_since = 0.0
                ready = [descriptor for descriptor, _ in poll.poll(_PING_SECONDS * 1000)]
                self._line.busy_since = time.monotonic()
                if not ready:
                    cursor.execute("SELECT 1")  # finds a connection that was cut in silence
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                    time.sleep(_BATCH_SECONDS)
                    self._send_all(cursor)
                self._hear_all(driver)

    def _hear_all(self, driver: Any) -> None:
        driver.poll()
        heard = [notice for notice in driver.notifies if notice.pid != driver.info.backend_pid]
        driver.notifies.clear()
        if heard:
            self._hear([topic for notice in heard for topic in notice.payload.split()])

    def _send_all(self, cursor: Any) -> None:
        with self._lock:
            topics, self._unsent = list(self._unsent), {}
        batch: list[str] = []
        size = 0
        for topic in topics:
            if size + len(topic) > _LONGEST:
                cursor.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, " ".join(batch)))
                batch, size = [], 0
            batch.append(topic)
            size += len(topic) + 1
        if batch:
            cursor.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, " ".join(batch)))
