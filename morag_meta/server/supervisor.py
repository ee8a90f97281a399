"""Several serving processes on one port: started, started again when they die, and ended together.

The parent serves nothing. It keeps the port reserved, so that a worker that is started anew finds it
free, and it holds the other end of each worker's standard input: when the parent is killed, the workers
see that end and drain. What a worker does stands in ``process.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time

import structlog

from morag_meta.config.settings import Settings
from morag_meta.exits import ExitCode
from morag_meta.server.process import OVERTIME_SECONDS, SAME_SIGNAL_SECONDS
from morag_meta.server.worker import dump

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
_LONG_LIFE_SECONDS = 60.0

# What trying again does not mend.
_FINAL = frozenset({ExitCode.CONFIGURATION, ExitCode.SCHEMA, ExitCode.USAGE})

_log = structlog.get_logger(__name__)


def supervise(settings: Settings) -> ExitCode:
    """Keep ``settings.workers`` processes serving until a signal; the address has a fixed port."""
    return asyncio.run(_Supervisor(settings).run())


class _Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: set[asyncio.subprocess.Process] = set()
        self._ending = asyncio.Event()
        self._deaf_until = 0.0
        self._outcome = ExitCode.OK

    async def run(self) -> ExitCode:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signaled, number.name)
        _log.info("starting workers", workers=self._settings.workers, address=self._settings.grpc_address)
        slots = [asyncio.create_task(self._keep(slot)) for slot in range(1, self._settings.workers + 1)]
        await self._ending.wait()
        self._tell(signal.SIGTERM)
        patience = self._settings.shutdown_grace + 2 * OVERTIME_SECONDS
        _, late = await asyncio.wait(slots, timeout=patience)
        if late:
            _log.error("workers killed", workers=len(self._workers))
            self._tell(signal.SIGKILL)
            await asyncio.wait(late)
            self._outcome = self._outcome or ExitCode.FAILURE
        _log.info("stopped")
        return self._outcome

    def _signaled(self, name: str) -> None:
        if not self._ending.is_set():
            _log.info("draining", cause=name, grace=self._settings.shutdown_grace)
            self._deaf_until = time.monotonic() + SAME_SIGNAL_SECONDS
            self._ending.set()
        if time.monotonic() < self._deaf_until:
            return
        _log.warning("ended without waiting", cause=name)
        self._outcome = ExitCode.INTERRUPTED
        self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(number)

    async def _keep(self, slot: int) -> None:
        """Keep one worker running, with growing pauses while it dies young."""
        pause = FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            began = time.monotonic()
            code = await self._run_one(slot)
            if self._ending.is_set():
                return
            if code in _FINAL:
                self._outcome = ExitCode(code)
                self._ending.set()
                return
            if time.monotonic() - began > _LONG_LIFE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            _log.warning("worker ended", slot=slot, code=code, again_in=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _run_one(self, slot: int) -> int:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "morag_meta.server.worker",
            stdin=asyncio.subprocess.PIPE,
            # Out of the terminal's process group, so that Ctrl-C reaches the parent alone.
            start_new_session=True,
        )
        self._workers.add(worker)
        _log.info("worker started", slot=slot, worker=worker.pid)
        try:
            if self._ending.is_set():
                worker.terminate()
            with contextlib.suppress(ConnectionError):
                if worker.stdin is not None:
                    worker.stdin.write(dump(self._settings))
                    await worker.stdin.drain()
            return await worker.wait()
        finally:
            self._workers.discard(worker)
