"""The sweeper: removes what is kept for a stated time only, a little after that time.

Any number of processes may sweep at once. What is swept, and how long it is kept, stands with each store.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from morag_meta.db.database import Database
from morag_meta.errors import MetaError
from morag_meta.uow import UnitOfWork

_INTERVAL_SECONDS: Final = 900.0
_BATCH: Final = 1000  # rows of one transaction, so that none of them outlives a statement's limit
_log = structlog.get_logger(__name__)

SWEEPS: Final[Mapping[str, Callable[[UnitOfWork], int]]] = {
    "request_records": lambda uow: uow.requests.sweep(_BATCH),
    "sessions": lambda uow: uow.sessions.sweep(_BATCH),
}
"""What is swept: each call removes one batch and gives its size."""


async def run(database: Database, stop: asyncio.Event) -> None:
    """Sweep now and then until ``stop`` is set; the pauses differ, so that processes do not meet."""
    while not stop.is_set():
        try:
            for kind, batch in SWEEPS.items():
                swept = await sweep(database, batch, stop)
                _log.debug("swept", kind=kind, rows=swept)
        except MetaError as error:
            _log.warning("sweeping failed", reason=str(error.reason))
        except Exception:  # noqa: BLE001 - whatever it was, the next sweep may do better
            _log.exception("sweeping failed")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _INTERVAL_SECONDS * random.SystemRandom().uniform(0.5, 1.5))


async def sweep(database: Database, batch: Callable[[UnitOfWork], int], stop: asyncio.Event) -> int:
    """Remove batch after batch, each in a transaction of its own, until none is full; give the rows."""
    total = 0
    while not stop.is_set():
        swept = await database.write(batch)
        total += swept
        if swept < _BATCH:
            break
    return total
