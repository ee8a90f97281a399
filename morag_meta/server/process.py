"""One serving process: its event loop, what ends it, and how it ends.

The first SIGTERM or SIGINT drains: readiness turns, streams are told to resume elsewhere, calls in
flight get the grace, what is batched is written, and the process ends with 0. In a process that was
started by a person a second signal, half a second later or more, ends it at once; a worker leaves that
to its parent, because a process group or a service manager may well signal both. What is served stands
in ``app.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import threading
from collections.abc import Callable

import structlog

from morag_meta.config.settings import Settings
from morag_meta.exits import ExitCode
from morag_meta.server import garbage
from morag_meta.server.address import AddressError
from morag_meta.server.app import App

OVERTIME_SECONDS = 3.0
"""What the last writes may take beyond the grace; a database that is away does not keep us here."""

SAME_SIGNAL_SECONDS = 0.5
"""Within this time a second signal is the first one again: many a sender signals a process and its group."""

_log = structlog.get_logger(__name__)


def run(settings: Settings, *, shared_port: bool = False, lifeline: int | None = None) -> ExitCode:
    """Serve until a signal, or until ``lifeline``, a pipe's file descriptor, is closed by the parent."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settings, shared_port=shared_port, lifeline=lifeline))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:  # not on every platform
        return asyncio.new_event_loop
    return factory


async def _serve(settings: Settings, *, shared_port: bool, lifeline: int | None) -> ExitCode:
    loop = asyncio.get_running_loop()
    asked, deaf_until = asyncio.Event(), 0.0

    def ask(cause: str) -> None:
        nonlocal deaf_until
        if not asked.is_set():
            deaf_until = loop.time() + SAME_SIGNAL_SECONDS
            _log.info("draining", cause=cause, grace=settings.shutdown_grace)
            _limit(settings.shutdown_grace + 2 * OVERTIME_SECONDS)
            asked.set()
        elif lifeline is None and loop.time() >= deaf_until:
            _log.warning("ended without waiting", cause=cause)
            os._exit(ExitCode.INTERRUPTED)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number.name)
    if lifeline is not None:
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        _watch(loop, lifeline, lambda: ask("parent ended"))
    app = App(settings, shared_port=shared_port)
    if await _started(app, settings.grpc_address, asked):
        garbage.settle()
        if not await _served(app, asked):
            _limit(settings.shutdown_grace + 2 * OVERTIME_SECONDS)
            await _stop(app, settings.shutdown_grace, ExitCode.FAILURE)
            return ExitCode.FAILURE
        await _stop(app, settings.shutdown_grace, ExitCode.OK)
    _log.info("stopped")
    return ExitCode.OK


async def _served(app: App, asked: asyncio.Event) -> bool:
    """Wait for the end; say whether it was asked for, as gRPC's server may end by a fault of its own."""
    ending = asyncio.ensure_future(asked.wait())
    gone = asyncio.ensure_future(app.ended())
    await asyncio.wait({ending, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not asked.is_set():
        _log.error("gRPC takes no more calls, by a fault of its own")
    ending.cancel()  # but not the other, with which the server's own waiting for its end would be cancelled
    return asked.is_set()


async def _started(app: App, address: str, asked: asyncio.Event) -> bool:
    """Start, unless the end is asked for meanwhile; return whether the app serves."""
    starting = asyncio.ensure_future(app.start())
    ending = asyncio.ensure_future(asked.wait())
    await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return False
    try:
        port = starting.result()
    except RuntimeError:  # gRPC says no more than this
        raise AddressError(f"address {address} cannot be listened on") from None
    _log.info("serving", address=address, port=port)
    return True


async def _stop(app: App, grace: float, code: ExitCode) -> None:
    try:
        async with asyncio.timeout(grace + OVERTIME_SECONDS):
            await app.stop(grace)
    except TimeoutError:
        # Threads that wait for the database would hold up an ordinary end.
        _log.error("ended with writes left undone: the database does not answer")
        os._exit(code)


def _watch(loop: asyncio.AbstractEventLoop, descriptor: int, closed: Callable[[], None]) -> None:
    def look() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            closed()

    loop.add_reader(descriptor, look)


def _limit(seconds: float) -> None:
    """End the process when it has not ended by then, even if the event loop itself hangs."""

    def end() -> None:
        _log.error("drain took too long")
        os._exit(ExitCode.FAILURE)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
