"""The watch over the epoch of authorization: which cached principals still count in this process.

One number in the database is raised by whatever may take standing away (``auth/store.py``). The watch
reads it every second; a unit of work of this process tells it at once. What is cached is
``auth/authenticator.py``'s matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Final

import structlog

from morag_meta.auth.store import EPOCH_TOPIC
from morag_meta.db.database import Database
from morag_meta.uow import UnitOfWork

INTERVAL_SECONDS: Final = 1.0
TRUST_SECONDS: Final = 5.0
"""How long what was read last is believed; a revoke in another process takes no longer to hold here."""

_log = structlog.get_logger(__name__)


class EpochWatch:
    """The newest epoch that this process knows of, and for how long it may be relied on."""

    def __init__(
        self, database: Database, *, interval: float = INTERVAL_SECONDS, trust: float = TRUST_SECONDS
    ) -> None:
        """Watch a database; times are seconds. Nothing is trusted before the first reading."""
        self._database = database
        self._interval = interval
        self._trust = trust
        self._lock = threading.Lock()
        self._newest = 0
        self._raised_at = 0.0
        self._trusted_until = 0.0
        self._readable = True
        database.listen(self._hear)

    @property
    def newest(self) -> int:
        """The newest epoch known."""
        return self._newest

    def counts(self, epoch: int) -> bool:
        """Say whether what was learned under ``epoch`` still holds."""
        return epoch == self._newest and time.monotonic() < self._trusted_until

    def note(self, epoch: int, read_at: float) -> None:
        """Take in an epoch whose reading began at ``read_at`` (monotonic seconds); safe in any thread.

        A lower one than the newest counts when it was read after the newest became known: the database
        was put back from a backup. Otherwise it is an old answer that came late.
        """
        with self._lock:
            if epoch > self._newest or (epoch < self._newest and read_at > self._raised_at):
                self._newest = epoch
                self._raised_at = time.monotonic()
            if epoch == self._newest:
                self._trusted_until = max(self._trusted_until, read_at + self._trust)

    async def refresh(self) -> None:
        """Read the epoch now; a failure, of whatever kind, is logged once, and trust runs out by itself."""
        try:
            epoch, read_at = await self._database.read(_read, point=True)
        except Exception as error:  # noqa: BLE001 - the watch goes on, so that trust comes back
            if self._readable:
                _log.warning("the epoch of authorization cannot be read", cause=type(error).__name__)
            self._readable = False
            return
        self._readable = True
        self.note(epoch, read_at)

    async def run(self, stop: asyncio.Event) -> None:
        """Read the epoch every interval until ``stop`` is set."""
        while not stop.is_set():
            await self.refresh()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._interval)

    def _hear(self, topics: tuple[str, ...]) -> None:
        for topic in topics:
            if topic.startswith(EPOCH_TOPIC):
                # Told after COMMIT: it is newer than whatever was read before, and no reading itself.
                self.note(int(topic.removeprefix(EPOCH_TOPIC)), 0.0)


def _read(uow: UnitOfWork) -> tuple[int, float]:
    read_at = time.monotonic()
    return uow.epoch.current(), read_at
