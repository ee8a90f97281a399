"""The sweeper: removes what is kept for a stated time only, a little after that time.

Any number of processes may sweep at once. What is swept, and how long it is kept, stands with each store.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from morag_meta.db.database import Database
from morag_meta.errors import MetaError
from morag_meta.uow import UnitOfWork

_LONGEST_PAUSE: Final = 900.0
_BATCH: Final = 1000  # rows of one transaction, so that none of them outlives a statement's limit
_CALLS_KEPT: Final = dt.timedelta(days=92)  # of API keys: as long as GetApiKeyUsage goes back
_log = structlog.get_logger(__name__)

Sweeps = Mapping[str, Callable[[UnitOfWork], int]]
"""What is swept: each call removes one batch and gives its size."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long jobs are kept after their end, requests untaken, and the rest after it was written, in s."""

    jobs: float = 90 * 86_400.0
    events: float = 90 * 86_400.0
    audit: float = 365 * 86_400.0
    reset_requests: float = 3600.0

    @property
    def pause(self) -> float:
        """How long to wait between two sweeps: a tenth of what is kept the shortest, 1 s to 15 min."""
        return min(max(min(self.jobs, self.events) / 10, 1.0), _LONGEST_PAUSE)


def sweeps(retention: Retention) -> Sweeps:
    """Give all that is swept."""
    jobs, events = dt.timedelta(seconds=retention.jobs), dt.timedelta(seconds=retention.events)
    requests = dt.timedelta(seconds=retention.reset_requests)
    audit = dt.timedelta(seconds=retention.audit)
    return {
        "request_records": lambda uow: uow.requests.sweep(_BATCH),
        "password_resets": lambda uow: uow.resets.sweep(_BATCH),
        "reset_requests": lambda uow: uow.resets.sweep_requests(requests, _BATCH),
        "tries": lambda uow: uow.tries.sweep(_BATCH),
        "sessions": lambda uow: uow.sessions.sweep(_BATCH),
        "jobs": lambda uow: uow.job_removals.expire_jobs(jobs, _BATCH),
        "api_key_calls": lambda uow: uow.api_keys.sweep_calls(_CALLS_KEPT, _BATCH),
        "workers": lambda uow: uow.workers.sweep(_BATCH),
        "job_events": lambda uow: uow.job_removals.expire_events(events, _BATCH),
        "audit_events": lambda uow: uow.audit.sweep(audit, _BATCH),
    }


async def run(database: Database, stop: asyncio.Event, retention: Retention) -> None:
    """Sweep now and then until ``stop`` is set; the pauses differ, so that processes do not meet."""
    kinds = sweeps(retention)
    while not stop.is_set():
        try:
            for kind, batch in kinds.items():
                swept = await sweep(database, batch, stop)
                _log.debug("swept", kind=kind, rows=swept)
        except MetaError as error:
            _log.warning("sweeping failed", reason=str(error.reason))
        except Exception:  # noqa: BLE001 - whatever it was, the next sweep may do better
            _log.exception("sweeping failed")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), retention.pause * random.SystemRandom().uniform(0.5, 1.5))


async def sweep(database: Database, batch: Callable[[UnitOfWork], int], stop: asyncio.Event) -> int:
    """Remove batch after batch, each in a transaction of its own, until one is empty; give the rows."""
    total = 0
    while not stop.is_set():
        swept = await database.write(batch)
        total += swept
        if not swept:
            break
    return total
