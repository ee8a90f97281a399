"""The events that go to the audit outside of any change: refusals, failures and reads that are kept.

A call only puts its entry into a dictionary; nothing is written on its path. What was noted since the last
batch is lost when the process is killed, at most one interval's worth; at an orderly end it is written.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from morag_meta.audit.rules import Entry
from morag_meta.db.database import Database
from morag_meta.flushing import flush_until
from morag_meta.uow import UnitOfWork

INTERVAL_SECONDS: Final = 2.0
MOST_ENTRIES: Final = 10_000
"""The most different entries that wait at once; what comes on top of them is dropped and counted."""
_BATCH: Final = 500

_log = structlog.get_logger(__name__)


class AuditWriter:
    """The entries that were not written yet; for the event loop's thread."""

    def __init__(
        self, database: Database, *, interval: float = INTERVAL_SECONDS, most: int = MOST_ENTRIES
    ) -> None:
        """Write to a database every ``interval`` seconds, keeping at most so many entries meanwhile."""
        self._database = database
        self._interval = interval
        self._most = most
        self._waiting: dict[tuple[str, ...], Entry] = {}
        self._reported = 0
        self.dropped = 0
        """How many entries were never written, since the process began."""

    def note(self, entry: Entry) -> None:
        """Take an entry of now; one that equals another that waits is counted with it."""
        likeness = entry.likeness
        known = self._waiting.get(likeness)
        if known is not None:
            self._waiting[likeness] = dataclasses.replace(known, count=known.count + entry.count)
        elif len(self._waiting) < self._most:
            time = entry.time or dt.datetime.now(dt.UTC)
            self._waiting[likeness] = dataclasses.replace(entry, time=time)
        else:
            self.dropped += entry.count

    async def flush(self) -> None:
        """Write what waits; what cannot be written is kept for the next time.

        A batch whose COMMIT broke half-way is written again only where the first did not take: the ids are
        the entries' own.
        """
        self._tell_dropped()
        waiting, self._waiting = list(self._waiting.values()), {}
        while waiting:
            batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
            try:
                await self._database.write(_adding(batch))
            except Exception as error:  # noqa: BLE001 - auditing goes on, whatever went wrong
                _log.warning("the audit cannot be written yet", cause=type(error).__name__)
                for entry in batch + waiting:
                    self.note(entry)
                return

    async def run(self, stop: asyncio.Event) -> None:
        """Write every interval until ``stop`` is set, and then once more."""
        await flush_until(stop, self._interval, self.flush)

    def _tell_dropped(self) -> None:
        if self.dropped > self._reported:
            _log.error("entries of the audit were dropped", entries=self.dropped - self._reported)
            self._reported = self.dropped


def _adding(batch: Sequence[Entry]) -> Callable[[UnitOfWork], None]:
    def add(uow: UnitOfWork) -> None:
        uow.audit.add_all(batch)

    return add
