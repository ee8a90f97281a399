"""The watchdog: frees threads from statements that a dead or paused database never answers.

A paused PostgreSQL holds a thread for good in spite of every timeout of driver and server; shutting
the socket down from outside lets it go at once. It only cuts; the runner sees a lost connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import structlog

_log = structlog.get_logger(__name__)


class Busy(Protocol):
    """What says since when a statement has been under way."""

    @property
    def busy_since(self) -> float:
        """The monotonic time at which it began; 0.0 between statements."""


class Watched(Protocol):
    """A thread's connection as it looks from outside; ``db.lanes.Worker`` is one."""

    @property
    def unit(self) -> Busy | None:
        """What is done on it, if anything."""

    @property
    def driver_connection(self) -> Any:
        """The driver's own connection, None where there is none."""


class Watchdog:
    """Looks every half second for statements that outlived their limit, and cuts their connections."""

    def __init__(self, workers: Callable[[], Iterable[Watched]], limit: float) -> None:
        """Watch the workers; ``limit`` is the longest a statement may take, in seconds."""
        self._workers = workers
        self._limit = limit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="database-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            for worker in self._workers():
                with contextlib.suppress(Exception):  # without this thread nothing is ever cut again
                    self._look(worker)

    def _look(self, worker: Watched) -> None:
        now, unit = time.monotonic(), worker.unit
        since = unit.busy_since if unit is not None else 0.0
        if unit is None or not since or now - since <= self._limit:
            return
        connection = worker.driver_connection
        if connection is not None and worker.unit is unit and unit.busy_since == since:
            cut(connection)
            _log.warning("statement cut", seconds=round(now - since, 1))


def cut(driver_connection: Any) -> None:
    """Break a driver's connection from another thread, whatever it is waiting for."""
    if hasattr(driver_connection, "interrupt"):  # sqlite3
        driver_connection.interrupt()
    elif hasattr(driver_connection, "fileno"):  # psycopg2
        with socket.socket(fileno=os.dup(driver_connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    else:  # PyMySQL keeps its socket to itself
        driver_connection._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001
