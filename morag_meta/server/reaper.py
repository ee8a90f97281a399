"""The reaper: looks for jobs whose time has come, and has done with each what is due.

Every process reaps, all at once: each job is handled in a transaction of its own, by whoever has its lock.
What is done with a job stands in ``jobs/reaper.py``, and when it is due in ``jobs/limits.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Final

import structlog

from morag_meta.db.database import Database
from morag_meta.errors import DeadlineExceeded, MetaError, Unavailable
from morag_meta.jobs.limits import Backoff
from morag_meta.jobs.reaper import handle

_BATCH: Final = 100  # jobs of one look, which are at most those that wait for the next one
_SHUNNED_SECONDS: Final = 60.0
_AWAY_SECONDS: Final = 3.0
_MOST_SHUNNED: Final = 1000
_log = structlog.get_logger(__name__)


class Reaper:
    """Reaps one database from one process."""

    def __init__(self, database: Database, backoff: Backoff, interval: float) -> None:
        """Look every ``interval`` seconds, and pause jobs whose lease was lost as ``backoff`` says."""
        self._database = database
        self._backoff = backoff
        self._interval = interval
        self._chance = random.SystemRandom()
        self._shunned: dict[str, float] = {}  # jobs that could not be handled, and until when they are left

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until ``stop`` is set; at once while there is more than one look handles."""
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
        """Handle at most a batch of overdue jobs, those of the oldest due; give whether there may be more.

        Raises:
            MetaError: the database is away. What goes wrong with one job alone is logged.
        """
        shunned = self._still_shunned()
        found = await self._database.read(lambda uow: uow.queue.overdue(_BATCH + len(shunned)))
        job_ids = [row["id"] for row in found if row["id"] not in shunned][:_BATCH]
        self._chance.shuffle(job_ids)  # so that processes that look at once share the work
        done = 0
        for job_id in job_ids:
            if stop.is_set():
                break
            done += await self._handle(job_id)
        return len(job_ids) == _BATCH and done > 0

    async def _handle(self, job_id: str) -> bool:
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
            return False
        if what is not None:
            _log.info("reaped", job_id=job_id, what=what)
        return what is not None

    def _still_shunned(self) -> frozenset[str]:
        now = time.monotonic()
        self._shunned = {job_id: until for job_id, until in self._shunned.items() if until > now}
        while len(self._shunned) > _MOST_SHUNNED:
            self._shunned.pop(next(iter(self._shunned)))
        return frozenset(self._shunned)


def _reason(error: Exception) -> str:
    return str(error.reason) if isinstance(error, MetaError) else type(error).__name__
