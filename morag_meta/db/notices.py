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

_log = structlog.get_logger(__name__)
_CHANNEL: Final = "morag_meta"
_BATCH_SECONDS: Final = 0.003
_RETRY_SECONDS: Final = 1.0
_PING_SECONDS: Final = 5.0
_LONGEST: Final = 7000  # PostgreSQL refuses payloads of 8000 bytes


class Notices:
    """The sending and hearing of one process."""

    def __init__(self, options: DatabaseOptions, hear: Callable[[Iterable[str]], None]) -> None:
        """Tell ``hear``, in this thread, the topics that other processes changed."""
        self._engine = make_engine(options, pooled=False)
        self._hear = hear
        self._lock = threading.Lock()
        self._unsent: dict[str, None] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)

    def start(self) -> None:
        """Begin to send and to hear."""
        self._thread.start()

    def send(self, topics: Iterable[str]) -> None:
        """Have other processes told of topics; returns at once, from any thread."""
        with self._lock:
            self._unsent.update(dict.fromkeys(topics))
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stop.set()
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"!")
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._engine.connect() as connection:
                    self._serve(connection)
            except Exception as fault:  # noqa: BLE001 - hints only: the poller is the truth
                _log.info("notices interrupted", error=type(fault).__name__)
                self._stop.wait(_RETRY_SECONDS)
        self._engine.dispose()

    def _serve(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor:
            cursor.execute(f"LISTEN {_CHANNEL}")
            while not self._stop.is_set():
                ready, _, _ = select.select([driver, self._wake_read], [], [], _PING_SECONDS)
                if not ready:
                    cursor.execute("SELECT 1")  # finds a connection that was cut in silence
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                    time.sleep(_BATCH_SECONDS)
                    self._send_all(cursor)
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
