"""How often and when each API key was used: counted in memory, written in batches.

A call only adds to a dictionary; nothing is written on its path. What was counted since the last batch
is lost when the process is killed, at most one interval's worth; at an orderly end it is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable
from typing import Final

import structlog

from morag_meta.db.database import Database
from morag_meta.uow import UnitOfWork

INTERVAL_SECONDS: Final = 5.0
MOST_KEYS: Final = 100_000
"""The most keys counted at once; while the database takes nothing, further keys go uncounted."""
_BATCH: Final = 500

_log = structlog.get_logger(__name__)
Use = tuple[str, int, dt.datetime]


class KeyUsage:
    """The uses that were not written yet; for the event loop's thread."""

    def __init__(
        self, database: Database, *, interval: float = INTERVAL_SECONDS, most_keys: int = MOST_KEYS
    ) -> None:
        """Write to a database every ``interval`` seconds."""
        self._database = database
        self._interval = interval
        self._most_keys = most_keys
        self._uses: dict[str, tuple[int, float]] = {}

    def note(self, key_id: str, time: float) -> None:
        """Count one use of a key at ``time`` (Unix seconds)."""
        known = self._uses.get(key_id)
        if known is not None:
            self._uses[key_id] = (known[0] + 1, max(known[1], time))
        elif len(self._uses) < self._most_keys:
            self._uses[key_id] = (1, time)

    async def flush(self) -> None:
        """Write what was counted; what cannot be written is kept for the next time.

        A batch whose COMMIT broke half-way is written again, and may then count twice.
        """
        uses, self._uses = self._uses, {}
        waiting = [(key_id, count, _utc(time)) for key_id, (count, time) in sorted(uses.items())]
        while waiting:
            batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
            try:
                await self._database.write(_adding(batch))
            except Exception as error:  # noqa: BLE001 - counting goes on, whatever went wrong
                _log.warning("the use of API keys cannot be written yet", cause=type(error).__name__)
                self._put_back(batch + waiting)
                return

    async def run(self, stop: asyncio.Event) -> None:
        """Write every interval until ``stop`` is set, and then once more."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._interval)
            await self.flush()
        await self.flush()  # what was counted while the last batch was being written

    def _put_back(self, uses: list[Use]) -> None:
        for key_id, count, time in uses:
            newer, last = self._uses.get(key_id, (0, 0.0))
            if newer or len(self._uses) < self._most_keys:
                self._uses[key_id] = (newer + count, max(last, time.timestamp()))


def _adding(batch: list[Use]) -> Callable[[UnitOfWork], None]:
    def add(uow: UnitOfWork) -> None:
        uow.api_keys.add_uses(batch)

    return add


def _utc(time: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(time, dt.UTC)
