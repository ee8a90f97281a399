"""How often and when each API key was used, and for what: counted in memory, written in batches.

A call only adds to a dictionary; nothing is written on its path. What was counted since the last batch
is lost when the process is killed, at most one interval's worth; at an orderly end it is written.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from morag_meta.db.database import Database
from morag_meta.flushing import flush_until
from morag_meta.uow import UnitOfWork

INTERVAL_SECONDS: Final = 5.0
MOST_KEYS: Final = 100_000
"""The most keys counted at once; while the database takes nothing, further keys go uncounted."""
_BATCH: Final = 500
"""Rows of one transaction: of keys, and of their calls by method and day."""

_log = structlog.get_logger(__name__)
_DAY_SECONDS: Final = 86_400


@dataclass(slots=True)
class _Figures:
    """The calls of one key to one method on one day; times are microseconds."""

    calls: int = 0
    errors: int = 0
    total_us: int = 0
    longest_us: int = 0

    def add(self, other: _Figures) -> None:
        self.calls += other.calls
        self.errors += other.errors
        self.total_us += other.total_us
        self.longest_us = max(self.longest_us, other.longest_us)


_Place = tuple[int, str]  # the day, counted from 1970, and the method
_Uses = dict[str, tuple[int, float]]
_Calls = dict[str, dict[_Place, _Figures]]


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
        self._calls: dict[str, dict[_Place, _Figures]] = {}
        self._flushing = asyncio.Lock()

    def note(self, key_id: str, time: float) -> None:
        """Count one use of a key at ``time`` (Unix seconds)."""
        known = self._uses.get(key_id)
        if known is not None:
            self._uses[key_id] = (known[0] + 1, max(known[1], time))
        elif len(self._uses) < self._most_keys:
            self._uses[key_id] = (1, time)

    def note_call(self, key_id: str, method: str, time: float, seconds: float, *, failed: bool) -> None:
        """Count a call that ended at ``time`` (Unix seconds) and took so many seconds.

        Its key's use may have been written before it ended; an unending stream counts when it ends.
        """
        places = self._calls.get(key_id)
        if places is None:
            if len(self._calls) >= self._most_keys:
                return
            places = self._calls[key_id] = {}
        figures = places.setdefault((int(time) // _DAY_SECONDS, method), _Figures())
        figures.add(_Figures(1, int(failed), microseconds := round(seconds * 1e6), microseconds))

    async def flush(self) -> None:
        """Write what was counted; what cannot be written is kept for the next time.

        A batch whose COMMIT broke half-way is written again, and may then count twice. One flush waits for
        the one before, so that at its end nothing that it found is still under way.
        """
        async with self._flushing:
            await self._flush()

    async def _flush(self) -> None:
        uses, self._uses = self._uses, {}
        calls, self._calls = self._calls, {}
        waiting = sorted({*uses, *calls})
        while waiting:
            size = _size_of_batch(waiting, calls)
            batch, waiting = waiting[:size], waiting[size:]
            try:
                await self._database.write(_adding(batch, uses, calls))
            except Exception as error:  # noqa: BLE001 - counting goes on, whatever went wrong
                _log.warning("the use of API keys cannot be written yet", cause=type(error).__name__)
                self._put_back(batch + waiting, uses, calls)
                return

    async def run(self, stop: asyncio.Event) -> None:
        """Write every interval until ``stop`` is set, and then once more."""
        await flush_until(stop, self._interval, self.flush)

    def _put_back(self, key_ids: list[str], uses: _Uses, calls: _Calls) -> None:
        for key_id in key_ids:
            if key_id in uses and (key_id in self._uses or len(self._uses) < self._most_keys):
                count, time = uses[key_id]
                newer, last = self._uses.get(key_id, (0, 0.0))
                self._uses[key_id] = (newer + count, max(last, time))
            if key_id in calls and (key_id in self._calls or len(self._calls) < self._most_keys):
                places = self._calls.setdefault(key_id, {})
                for place, figures in calls[key_id].items():
                    places.setdefault(place, _Figures()).add(figures)


def _size_of_batch(key_ids: list[str], calls: _Calls) -> int:
    """Give how many keys make up a batch: at least one, and together no more rows than it takes.

    Its keys stay locked until it is written, and whoever revokes one of them waits, with the epoch.
    """
    rows = 0
    for number, key_id in enumerate(key_ids):
        rows += 1 + len(calls.get(key_id, ()))
        if number and rows > _BATCH:
            return number
    return len(key_ids)


def _adding(batch: list[str], uses: _Uses, calls: _Calls) -> Callable[[UnitOfWork], None]:
    """Give the work that writes what some keys did: their uses first, which locks them in order of id."""
    counted = {key_id: uses.get(key_id, (0, 0.0)) for key_id in batch}
    rows = [
        {"of_key": key_id, "of_day": _utc(day * _DAY_SECONDS), "of_method": method, **asdict(figures)}
        for key_id in batch
        for (day, method), figures in sorted(calls.get(key_id, {}).items(), key=lambda each: each[0])
    ]

    def add(uow: UnitOfWork) -> None:
        uow.api_keys.add_uses([(key_id, count, _utc(time)) for key_id, (count, time) in counted.items()])
        uow.api_keys.add_calls(rows)

    return add


def _utc(time: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(time, dt.UTC)
