"""The probe: asks the database again and again, in a thread of its own, and knows when it hangs.

A database that refuses is seen within ``PAUSE_SECONDS``, one that is silent within ``PAUSE_SECONDS`` +
``LIMIT_SECONDS``. There is one thread for good: while it hangs, no other is started, its connection is
cut from outside, and the answer stays "not ready". What a bad probe means stands in ``readiness.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

import structlog

from morag_meta.db.engine import DatabaseOptions
from morag_meta.health.question import Question
from morag_meta.health.readiness import Readiness

PAUSE_SECONDS = 1.0
PAUSE_IN_OUTAGE_SECONDS = 0.5
LIMIT_SECONDS = 2.5

_log = structlog.get_logger(__name__)


class Probe:
    """Whether the database answers, as ``ready``; lives on one event loop."""

    def __init__(self, options: DatabaseOptions) -> None:
        """Prepare; ``start`` asks for the first time."""
        self._question = Question(options)
        self._readiness = Readiness()
        self._listeners: list[Callable[[], None]] = []
        self._follower: asyncio.Task[None] | None = None
        self._asked = threading.Semaphore(0)
        self._answer: asyncio.Future[str] | None = None
        self._fault = ""
        self._stopping = False

    @property
    def ready(self) -> bool:
        """The steady answer."""
        return self._readiness.ready

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` on the loop at every change of ``ready``."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Ask once, so that the first answer given is a true one, and go on asking."""
        worker = threading.Thread(
            target=self._work, args=(asyncio.get_running_loop(),), name="health-probe", daemon=True
        )
        worker.start()
        await self._probe()
        if not self.ready:
            _log.warning("database does not answer", fault=self._fault)
        self._follower = asyncio.create_task(self._follow(), name="health-probe")

    async def stop(self) -> None:
        """Stop asking; a thread that hangs is cut loose and not waited for."""
        self._stopping = True
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
        self._question.cut()
        self._asked.release()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS if self.ready else PAUSE_IN_OUTAGE_SECONDS)
            await self._probe()

    async def _probe(self) -> None:
        """Ask once; what takes longer than the limit has failed, whatever it says at last."""
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._asked.release()
        done, _ = await asyncio.wait({answer}, timeout=LIMIT_SECONDS)
        if done:
            self._note(answer.result())
            return
        self._note("no answer in time")
        while not answer.done():
            self._question.cut()
            await asyncio.wait({answer}, timeout=1.0)

    def _note(self, fault: str) -> None:
        self._fault = fault
        if not self._readiness.note(time.monotonic(), good=not fault):
            return
        if self.ready:
            _log.info("database answers")
        else:
            _log.warning("database does not answer", fault=fault)
        for listener in self._listeners:
            listener()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer each question with the name of what went wrong, empty if nothing did (in the thread)."""
        while self._asked.acquire() and not self._stopping:
            fault = ""
            try:
                self._question.ask()
            except Exception as error:  # noqa: BLE001 - any failure of a driver means the same here
                fault = type(error).__name__
                self._question.close()
            with contextlib.suppress(RuntimeError):  # the loop is gone, and so is who asked
                loop.call_soon_threadsafe(self._settle, fault)
        self._question.close()

    def _settle(self, fault: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(fault)
