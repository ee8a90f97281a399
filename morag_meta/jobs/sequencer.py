"""The sequencer: has the events that were committed numbered, soon after each commit.

Every process has one, and whichever comes first does the work; the others find it done, or locked, and
never wait for each other. What numbering is stands in ``log.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

import structlog

from morag_meta.db.database import Database
from morag_meta.errors import MetaError
from morag_meta.jobs.log import BATCH
from morag_meta.jobs.store import LOG_TOPIC, TOPIC
from morag_meta.uow import UnitOfWork

_log = structlog.get_logger(__name__)
_RETRY_SECONDS: Final = 0.01  # where another process is at it, which takes some milliseconds
_LONGEST_RETRY_SECONDS: Final = 0.2
_SETTLE_SECONDS: Final = 2.0


class Sequencer:
    """Numbers events when it hears of commits of this process, or is woken by whoever polls the log."""

    def __init__(self, database: Database) -> None:
        """Work on a database; call ``start`` on the event loop, then run ``run`` there."""
        self._database = database
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._next: asyncio.Future[None] | None = None  # done at the end of the pass that has not begun

    def start(self) -> None:
        """Listen to this process's commits."""
        self._loop = asyncio.get_running_loop()
        self._database.listen(self.hint)

    def hint(self, topics: Iterable[str]) -> None:
        """Hear from any thread what was committed."""
        loop = self._loop
        if loop is None or self._wake.is_set() or loop.is_closed():
            return
        if any(topic.startswith(TOPIC) for topic in topics):
            loop.call_soon_threadsafe(self._wake.set)

    def wake(self) -> None:
        """Have a pass made, as there are events without a position."""
        self._wake.set()

    async def settle(self) -> None:
        """Return when every event that was committed before has a position, or after two seconds."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await asyncio.shield(self._next)

    async def run(self) -> None:
        """Make passes until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            settled, self._next = self._next, None
            try:
                await self._pass()
            except MetaError as error:  # whoever polls the log asks again
                _log.info("events wait for their position", reason=str(error.reason))
                await asyncio.sleep(_LONGEST_RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - whatever it was, watchers need the next pass
                _log.exception("giving events their position failed")
                await asyncio.sleep(_LONGEST_RETRY_SECONDS)
            finally:
                if settled is not None and not settled.done():
                    settled.set_result(None)

    async def _pass(self) -> None:
        """Number until nothing is left that was committed before the pass began."""
        pause = _RETRY_SECONDS
        while True:
            count = await self._database.write(_number)
            if count is not None:
                pause = _RETRY_SECONDS
                if count < BATCH:
                    return
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RETRY_SECONDS)
            found = await self._database.read(lambda uow: uow.log.look(), point=True)
            if not found["waiting"]:
                return


def _number(uow: UnitOfWork) -> int | None:
    count = uow.log.number()
    if count:
        uow.announce(LOG_TOPIC)
    return count
