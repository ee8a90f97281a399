"""The question to the database: can one get in and read? Synchronous, on a connection of its own.

What does not live here: when it is asked and what an answer means (``probe.py``, ``readiness.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

from morag_meta.db.engine import DatabaseOptions, make_engine
from morag_meta.db.url import normalize
from morag_meta.db.watchdog import cut

RENEW_SECONDS = 2.0
"""The age at which the connection is renewed, so that a database that lets nobody in is seen too."""
CONNECT_SECONDS = 3.0
_STATEMENT_SECONDS = 2.0


class Question:
    """One connection and the one thing asked over it; ``cut`` may be called from any thread."""

    def __init__(self, options: DatabaseOptions) -> None:
        """Prepare; nothing is connected yet."""
        # Its own short limits: a probe that waits is a probe that failed.
        self._engine = make_engine(
            dataclasses.replace(
                options,
                connect_timeout=min(CONNECT_SECONDS, options.connect_timeout),
                statement_timeout=_STATEMENT_SECONDS,
                echo=False,
            ),
            pooled=False,
        )
        self._file = Path(normalize(options.url).database or "") if options.dialect == "sqlite" else None
        # SELECT 1 would not touch a SQLite file at all.
        self._statement = "SELECT 1" if self._file is None else "SELECT count(*) FROM sqlite_master"
        self._connection: Any = None
        self._born = 0.0

    def ask(self) -> None:
        """Return when the database answered.

        Raises:
            Exception: whatever the driver says; the caller need only know that it did not answer.
        """
        if self._file is not None and not self._file.exists():
            self.close()
            raise FileNotFoundError("the database file is gone")
        if self._connection is None:
            self._renew()
            self._run()
            return
        if time.monotonic() - self._born > RENEW_SECONDS:
            # A full house refuses newcomers quickly; those inside, this process among them, are served.
            with contextlib.suppress(Exception):
                self._renew()
        try:
            self._run()
        except Exception:  # noqa: BLE001 - a connection that was killed is no outage: try a new one
            self._renew()
            self._run()

    def cut(self) -> None:
        """Break the connection, so that the thread that waits for it goes on."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(Exception):
                cut(connection)

    def close(self) -> None:
        """Close the connection; ``ask`` opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _renew(self) -> None:
        pooled = self._engine.raw_connection()
        fresh = pooled.driver_connection
        pooled.detach()
        self.close()
        self._connection, self._born = fresh, time.monotonic()
        if self._file is not None:
            self._run(f"PRAGMA busy_timeout = {int(_STATEMENT_SECONDS * 1000)}")

    def _run(self, statement: str | None = None) -> None:
        cursor = self._connection.cursor()
        try:
            cursor.execute(statement or self._statement)
            cursor.fetchall()
        finally:
            cursor.close()
