"""The reaper: looks for jobs whose time has come, and has done with each what is due.

Every process reaps, all at once: each job is handled in a transaction of its own, by whoever has its lock.
What is done with a job stands in ``jobs/reaper.py``, and when it is due in ``jobs/limits.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.errors import DeadlineExceeded, MetaError, Unavailable
from morag_meta.jobs.limits import Backoff
from morag_meta.jobs.reaper import handle

_BATCH: Final = 100  # jobs of one look
_SHUNNED_SECONDS: Final = 60.0
_AWAY_SECONDS: Final = 3.0
_MOST_SHUNNED: Final = 1000
_EVER: Final = dt.datetime.fromtimestamp(0, dt.UTC)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Round:
    """How far a reaper has come through what was overdue when it set out."""

    place: dt.datetime = _EVER
    """When the last one that was looked at was due."""
    seen: frozenset[str] = frozenset()
    """Those that were due just then and were looked at."""
    end: dt.datetime | None = None
    """What is due later is the next round's, or one would never end while more comes than is handled."""

    def behind(self, batch: Sequence[Row]) -> _Round:
        """Go on behind a batch; begin again where the round ends with it."""
        place, end = batch[-1]["due_time"], self.end or batch[0]["clock"]
        if place > end:
            return _Round()
        seen = frozenset(row["id"] for row in batch if row["due_time"] == place)
        return _Round(place, seen | self.seen if place == self.place else seen, end)


class Reaper:
    """Reaps one database from one process."""

    def __init__(self, database: Database, backoff: Backoff, interval: float) -> None:
        """Look every ``interval`` seconds, and pause jobs whose lease was lost as ``backoff`` says."""
        self._database = database
        self._backoff = backoff
        self._interval = interval
        self._chance = random.SystemRandom()
        self._shunned: dict[str, float] = {}  # jobs that could not be handled, and until when they are left
        self._round = _Round()

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until ``stop`` is set; at once while there is more than one look takes in."""
        failing = False
        while not stop.is_set():
            try:
                again = await self.reap(stop)
                failing = False
            except Exception as error:  # noqa: BLE001 - whatever it was, the next look may do better
                again = False
                if not failing:  # a database that is away is told of once
                    _log.warning("reaping failed", reason=_reason(error))
                failing = True
            if not again:
                # Never longer than the interval, which is promised; processes do not meet all the same.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), self._interval * self._chance.uniform(0.5, 1.0))

    async def reap(self, stop: asyncio.Event) -> bool:
        """Handle at most a batch of overdue jobs; give whether there may be more.

        Each look goes on behind the last one, so that however many jobs somebody else holds keep nobody
        behind them waiting, and begins again with the oldest due when all have been looked at.

        Raises:
            MetaError: the database is away. What goes wrong with one job alone is logged.
        """
        begun, left = self._round, self._still_shunned() | self._round.seen
        found = await self._database.read(
            lambda uow: uow.jobs.overdue(begun.place, _BATCH + len(left)),
        )
        batch = [row for row in found if row["id"] not in left][:_BATCH]
        job_ids = [row["id"] for row in batch]
        self._chance.shuffle(job_ids)  # so that processes that look at once share the work
        for job_id in job_ids:
            if stop.is_set():
                return False
            await self._handle(job_id)
        self._round = begun.behind(batch) if len(batch) == _BATCH else _Round()
        return len(batch) == _BATCH

    async def _handle(self, job_id: str) -> None:
        chance = self._chance.random()
        try:
            what = await self._database.write(lambda uow: handle(uow, job_id, self._backoff, chance))
        except Exception as error:
            # One job that cannot be handled must not keep the others for ever.
            away = isinstance(error, Unavailable | DeadlineExceeded)
            self._shunned[job_id] = time.monotonic() + (_AWAY_SECONDS if away else _SHUNNED_SECONDS)
            if away:
                raise
            _log.warning("a job could not be reaped", job_id=job_id, reason=_reason(error))
            return
        if what is not None:
            _log.info("reaped", job_id=job_id, what=what)

    def _still_shunned(self) -> frozenset[str]:
        now = time.monotonic()
        self._shunned = {job_id: until for job_id, until in self._shunned.items() if until > now}
        while len(self._shunned) > _MOST_SHUNNED:
            self._shunned.pop(next(iter(self._shunned)))
        return frozenset(self._shunned)


def _reason(error: Exception) -> str:
    return str(error.reason) if isinstance(error, MetaError) else type(error).__name__
