"""Lanes: the bounded queues and threads in which units of work run off the event loop.

A lane's threads hold one connection each for as long as it is good. Work that waits too long, or whose
caller has left, never runs. What a piece of work does is ``db/database.py``'s matter.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from morag_meta.db.engine import DatabaseOptions
from morag_meta.db.faults import Disconnected, busy, translate
from morag_meta.db.unit import Unit
from morag_meta.errors import DeadlineExceeded, Reason, Unavailable

T = TypeVar("T")
_STOP: Final = None


@dataclass(slots=True)
class Work:
    """One piece of work: what to run, for whom, and until when (monotonic seconds) it may wait."""

    run: Callable[[Worker], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    give_up: float
    deadline: float | None

    def finish(self, result: Any, error: BaseException | None) -> None:
        """Hand the outcome to the event loop, unless its caller or the loop itself is gone."""
        try:
            self.loop.call_soon_threadsafe(_settle, self.future, result, error)
        except RuntimeError:  # the loop is closed: nobody is waiting any more
            return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class Errand:
    """What a thread has the database do before a unit of work: open a connection, or say that it stands."""

    def __init__(self) -> None:
        """Begin now."""
        self.busy_since = time.monotonic()


_own = threading.local()


def note_opened(driver_connection: Any, record: object) -> None:
    """Let the thread's worker know of a connection before the first question is asked on it.

    For the engine's event "connect", ahead of SQLAlchemy's own questions, of which each may be left
    without an answer.
    """
    del record
    worker: Worker | None = getattr(_own, "worker", None)
    if worker is not None:
        worker.opened(driver_connection)


class Worker:
    """A thread's connection, and what is under way on it."""

    def __init__(self, engine: sa.Engine, options: DatabaseOptions) -> None:
        """Start without a connection; the first unit opens it."""
        self._engine = engine
        self._recycle = options.pool_recycle
        self._pre_ping = options.pre_ping
        self._connection: sa.Connection | None = None
        self._since = 0.0
        self._opening: Any = None  # the driver's connection while SQLAlchemy still asks questions on it
        self.unit: Unit | Errand | None = None

    def connection(self) -> sa.Connection:
        """Give the connection, opening one where there is none or the old one has aged.

        Raises:
            Disconnected: the database cannot be reached.
        """
        self.unit = Errand()
        try:
            old = time.monotonic() - self._since > self._recycle
            if self._connection is not None and (old or not self._answers()):
                self.drop()
            if self._connection is None:
                self._connection = self._opened()
            return self._connection
        finally:
            self.unit = self._opening = None

    def opened(self, driver_connection: Any) -> None:
        """Take note of the driver's connection, which was established just now."""
        self._opening, self.unit = driver_connection, Errand()

    def _opened(self) -> sa.Connection:
        _own.worker = self
        try:
            connection = self._engine.connect()
        except Exception as fault:
            error = translate(fault)
            if isinstance(error, Unavailable) and error.reason is Reason.DATABASE_UNAVAILABLE:
                error = Disconnected(
                    "the database cannot be reached",
                    reason=Reason.DATABASE_UNAVAILABLE,
                    retry_after=1.0,
                )
            raise error from fault
        finally:
            _own.worker = None
        self._since = time.monotonic()
        return connection

    def _answers(self) -> bool:
        """Ask whether the connection still stands, where that is wanted before each use."""
        if not self._pre_ping:
            return True
        try:
            return bool(self._engine.dialect.do_ping(self.driver_connection))
        except Exception:  # noqa: BLE001 - whatever it says, it is no good
            return False

    @property
    def driver_connection(self) -> Any:
        """The driver's own connection, for who cuts it from another thread; None where there is none."""
        connection = self._connection
        return self._opening if connection is None else connection.connection.driver_connection

    def release(self) -> None:
        """Give the connection back to the pool, as clean as it came."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def drop(self) -> None:
        """Close the connection for good."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception:  # noqa: BLE001, S110 - it is thrown away, in whatever state
                pass


class Lane:
    """Some threads and their bounded queue."""

    def __init__(self, name: str, engine: sa.Engine, options: DatabaseOptions, threads: int) -> None:
        """Make the lane; threads start as work comes, at most so many."""
        self._name = name
        self._engine = engine
        self._options = options
        self._most = threads
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._spare = 0  # idle threads less waiting work: what is accepted below 0 needs another thread
        self._closed = False
        self.workers: list[Worker] = []

    async def submit(self, run: Callable[[Worker], T], deadline: float | None) -> T:
        """Run work in a thread of this lane and give its result.

        Raises:
            Unavailable: the queue is full, or the work waited longer than the pool timeout (SERVER_BUSY).
            DeadlineExceeded: ``deadline`` (monotonic seconds) passed before the work began.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        work = Work(run, loop, future, time.monotonic() + self._options.pool_timeout, deadline)
        with self._lock:
            if self._closed or self._queue.qsize() >= self._options.queue:
                raise busy("too many calls are waiting for the database")
            self._queue.put(work)
            self._spare -= 1
            if self._spare < 0 and len(self._threads) < self._most:
                self._start_thread()
        try:
            return await future
        finally:
            # An error keeps the frames that it went through, and must not be kept by them in turn: it would
            # hold the whole call until garbage is collected.
            del future, work

    def close(self, timeout: float) -> None:
        """Let what waits run, then end the threads; waits at most ``timeout`` seconds."""
        with self._lock:  # so that nothing is accepted behind the last of these, and no thread starts
            self._closed = True
            for _ in self._threads:
                self._queue.put(_STOP)
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _start_thread(self) -> None:
        worker = Worker(self._engine, self._options)
        thread = threading.Thread(
            target=self._serve, args=(worker,), name=f"{self._name}-{len(self._threads)}", daemon=True
        )
        self.workers.append(worker)
        self._threads.append(thread)
        self._spare += 1
        thread.start()

    def _serve(self, worker: Worker) -> None:
        while True:
            work = self._queue.get()
            if work is _STOP:
                worker.drop()
                return
            outcome = None if work.future.cancelled() else _outcome(worker, work)
            with self._lock:  # before the caller hears of it: its next work must find this thread idle
                self._spare += 1
            if outcome is not None:
                work.finish(*outcome)
            del work, outcome  # an idle thread must not keep the last call's objects alive


def _outcome(worker: Worker, work: Work) -> tuple[Any, BaseException | None]:
    """Run the work, unless it has waited too long, and give its result or its error."""
    now = time.monotonic()
    if work.deadline is not None and now >= work.deadline:
        return None, DeadlineExceeded(
            "the deadline passed while the call waited for the database", reason=Reason.DEADLINE_IN_QUEUE
        )
    if now >= work.give_up:
        return None, busy("the call waited too long for the database")
    try:
        return work.run(worker), None
    except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
        del work  # as in ``submit``
        return None, error
