"""The sweeper: removes what is kept for a stated time only, a little after that time.

Any number of processes may sweep at once. What is swept, and how long it is kept, stands with each store.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Final

import structlog

from morag_meta.db.database import Database
from morag_meta.errors import MetaError
from morag_meta.uow import UnitOfWork

_INTERVAL_SECONDS: Final = 900.0
_log = structlog.get_logger(__name__)


def sweep(uow: UnitOfWork) -> dict[str, int]:
    """Remove what has outlived its time; gives the number of rows of each kind."""
    return {"request_records": uow.requests.sweep(), "sessions": uow.sessions.sweep()}


async def run(database: Database, stop: asyncio.Event) -> None:
    """Sweep now and then until ``stop`` is set; the pauses differ, so that processes do not meet."""
    while not stop.is_set():
        try:
            swept = await database.write(sweep)
            _log.debug("swept", **swept)
        except MetaError as error:
            _log.warning("sweeping failed", reason=str(error.reason))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _INTERVAL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
