"""The events that go to the audit outside of any change: refusals, failures and reads that are kept.

A call only puts its entry into a dictionary; nothing is written on its path. What was noted since the last
batch is lost when the process is killed, at most one interval's worth; at an orderly end it is written.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from morag_meta.audit.rules import Entry
from morag_meta.db.database import Database
from morag_meta.db.unit import CommitUnknown
from morag_meta.errors import AlreadyExists, DeadlineExceeded, Stale, Unavailable
from morag_meta.flushing import flush_until
from morag_meta.uow import UnitOfWork

INTERVAL_SECONDS: Final = 2.0
MOST_ENTRIES: Final = 10_000
"""The most different entries that wait at once; what comes on top of them is dropped and counted."""
_BATCH: Final = 500

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Entries of one transaction; in doubt is whether they are there already."""

    entries: Sequence[Entry]
    in_doubt: bool = False


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
        self._doubtful: list[Entry] = []  # a batch at most, since nothing is written before it
        self._flushing = asyncio.Lock()
        self._reported = 0
        self.dropped = 0
        """How many entries were never written, since the process began."""

    @property
    def waiting(self) -> int:
        """How many entries, equal ones as one, are to be written."""
        return len(self._waiting) + len(self._doubtful)

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
        """Write what waits; what cannot be written yet is kept for the next time.

        Where a batch is refused for good its entries go one by one, and the one that is refused then is
        dropped, counted and logged. A batch whose COMMIT broke half-way is kept as it is, since no later
        entry may be counted with what is there already, and only what is not there is written of it then.
        One flush waits for the one before, so that at its end nothing that it found is still under way.
        """
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        self._tell_dropped()
        batches = self._take()
        while batches:
            batch = batches.popleft()
            try:
                await self._database.write(_adding(batch))
            except CommitUnknown as error:
                self._put_back([dataclasses.replace(batch, in_doubt=True), *batches], error)
                return
            except (Unavailable, DeadlineExceeded, Stale) as error:
                self._put_back([batch, *batches], error)
                return
            except Exception as error:  # noqa: BLE001 - auditing goes on, whatever went wrong
                if len(batch.entries) == 1:
                    self._drop(batch.entries[0], error)
                else:
                    batches.extendleft(reversed([_Batch([each], batch.in_doubt) for each in batch.entries]))

    async def run(self, stop: asyncio.Event) -> None:
        """Write every interval until ``stop`` is set, and then once more."""
        await flush_until(stop, self._interval, self.flush)

    def _take(self) -> deque[_Batch]:
        """Give all that waits, what is in doubt first."""
        waiting, self._waiting = list(self._waiting.values()), {}
        doubtful, self._doubtful = self._doubtful, []
        batches = deque([_Batch(doubtful, in_doubt=True)] if doubtful else [])
        batches.extend(_Batch(waiting[start : start + _BATCH]) for start in range(0, len(waiting), _BATCH))
        return batches

    def _put_back(self, batches: Sequence[_Batch], error: Exception) -> None:
        _log.warning("the audit cannot be written yet", cause=type(error).__name__)
        for batch in batches:
            if batch.in_doubt:
                self._doubtful += batch.entries
                continue
            for entry in batch.entries:
                self.note(entry)

    def _drop(self, entry: Entry, error: Exception) -> None:
        if isinstance(error, AlreadyExists):
            return  # the COMMIT that was in doubt took just now
        _log.error("an entry of the audit cannot be written", method=entry.method, cause=type(error).__name__)
        self.dropped += entry.count
        self._reported += entry.count

    def _tell_dropped(self) -> None:
        if self.dropped > self._reported:
            _log.error("entries of the audit were dropped", entries=self.dropped - self._reported)
            self._reported = self.dropped


def _adding(batch: _Batch) -> Callable[[UnitOfWork], None]:
    def add(uow: UnitOfWork) -> None:
        if batch.in_doubt:
            uow.audit.add_absent(batch.entries)
        else:
            uow.audit.add_all(batch.entries)

    return add
