"""The seam: opens units of work for whoever needs one, in the thread where they belong.

``read`` and ``write`` serve the event loop, ``unit_of_work`` serves synchronous code: the command line,
tests and programs that embed the service. What a unit of work holds stands in ``uow.py``.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Self, TypeVar

import sqlalchemy as sa

from morag_meta.db.engine import DatabaseOptions, make_engine
from morag_meta.db.faults import Disconnected, busy, translate
from morag_meta.db.lanes import Lane, Worker, note_opened
from morag_meta.db.unit import CommitUnknown, Tell
from morag_meta.db.watchdog import Watchdog
from morag_meta.errors import Collision, MetaError, Reason, Stale, Unavailable
from morag_meta.uow import UnitOfWork

T = TypeVar("T")

ATTEMPTS: Final = 6
"""How often one unit of work is run before concurrent changes win."""
_BACKOFF_SECONDS: Final = 0.01


class Database:
    """One database and the threads that use it; make one per process, and close it."""

    def __init__(self, options: DatabaseOptions) -> None:
        """Prepare; no connection is opened before the first unit of work."""
        self.options = options
        self.dialect = options.dialect
        self.engine = make_engine(options)
        if self.dialect == "sqlite":
            self._readers = Lane("reader", self.engine, options, threads=2)
            self._writers = Lane("writer", self.engine, options, threads=1)
        else:
            self._readers = Lane("database", self.engine, options, threads=options.connections)
            self._writers = self._readers
        self._inline: sa.Connection | None = None
        self._opening = threading.Lock()
        self._listeners: list[Tell] = []
        self._callers: set[Worker] = set()
        sa.event.listen(self.engine, "connect", note_opened, insert=True)
        self._watchdog = Watchdog(
            lambda: [*self._readers.workers, *self._writers.workers, *self._callers],
            options.statement_timeout + 2.0,
        )
        self._watchdog.start()

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a database by its URL, with everything else at its default."""
        return cls(DatabaseOptions(url=url))

    @contextlib.contextmanager
    def unit_of_work(self, *, snapshot: bool = False) -> Iterator[UnitOfWork]:
        """Open a unit of work in the calling thread; leaving the block without ``commit()`` rolls back.

        Raises:
            MetaError: the domain errors; database errors among them, never a driver's own.
        """
        worker = Worker(self.engine, self.options)
        self._callers.add(worker)
        try:
            try:
                uow = self._begin(worker, snapshot=snapshot)
            except Disconnected:  # it had waited in the pool while the database went and came back
                uow = self._begin(worker, snapshot=snapshot)
            try:
                yield uow
            finally:
                _end(worker, uow)
        finally:
            self._callers.discard(worker)
            worker.release()

    async def read(
        self,
        work: Callable[[UnitOfWork], T],
        *,
        point: bool = False,
        snapshot: bool = False,
        deadline: float | None = None,
    ) -> T:
        """Run work that only reads.

        ``point`` marks a read by key, which SQLite runs at once on the event loop; ``snapshot`` makes
        several statements agree; ``deadline`` is in monotonic seconds.

        Raises:
            Unavailable: the queue is full or the database is away.
            DeadlineExceeded: the deadline passed before the work began.
        """
        if point and not snapshot and self.dialect == "sqlite":
            if self._inline is None:
                await self._readers.submit(lambda _: self._open_inline(), deadline)
            try:
                return self._read_inline(work)
            except Unavailable:
                self._drop_inline()  # somebody holds the file: wait for it in a thread, not here
        return await self._readers.submit(
            lambda worker: self._reading(worker, work, snapshot=snapshot), deadline
        )

    async def write(self, work: Callable[[UnitOfWork], T], *, deadline: float | None = None) -> T:
        """Run work in a transaction and commit it; runs it again when concurrent changes collide.

        The work may therefore run more than once, and must touch nothing but its unit of work. It is
        committed also when the awaiting task is cancelled meanwhile.

        Raises:
            Stale: it kept colliding (CONFLICT).
            CommitUnknown: the connection broke during COMMIT and no request record makes repeating safe.
            Unavailable, DeadlineExceeded: as ``read``.
        """
        return await self._writers.submit(lambda worker: self._writing(worker, work), deadline)

    def listen(self, listener: Tell) -> None:
        """Have ``listener`` told what committed units announced, in the thread that committed.

        It must be quick and must not raise; it hears only of this process's commits.
        """
        self._listeners.append(listener)

    def close(self, timeout: float = 5.0) -> None:
        """Finish what waits, then close every connection."""
        self._readers.close(timeout)
        if self._writers is not self._readers:
            self._writers.close(timeout)
        self._drop_inline()
        self._watchdog.stop()
        self.engine.dispose()

    def _begin(self, worker: Worker, *, snapshot: bool) -> UnitOfWork:
        """Begin on a connection of the pool, and have the database say so."""
        uow = worker.unit = self._unit(worker.connection())
        try:
            uow.begin(snapshot=snapshot)
            uow.send_begin()
        except BaseException:
            _end(worker, uow)
            raise
        return uow

    def _unit(self, connection: sa.Connection) -> UnitOfWork:
        return UnitOfWork(connection, self.dialect, self._tell, default_quotas=self.options.default_quotas)

    def _tell(self, topics: tuple[str, ...]) -> None:
        for listener in self._listeners:
            listener(topics)

    def _open_inline(self) -> None:
        """Open the event loop's own connection, in a thread, because opening may wait for a lock."""
        with self._opening:
            if self._inline is None:
                try:
                    connection = self.engine.connect()
                    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
                except Exception as fault:
                    raise translate(fault) from fault
                connection.rollback()
                self._inline = connection

    def _read_inline(self, work: Callable[[UnitOfWork], T]) -> T:
        connection = self._inline
        if connection is None:
            raise busy("the connection was dropped meanwhile")
        uow = self._unit(connection)
        try:
            return work(uow)
        finally:
            uow.rollback()
            if uow.broken:
                self._drop_inline()

    def _drop_inline(self) -> None:
        connection, self._inline = self._inline, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.invalidate()
                connection.close()

    def _reading(self, worker: Worker, work: Callable[[UnitOfWork], T], *, snapshot: bool) -> T:
        def attempt(uow: UnitOfWork) -> T:
            if snapshot:
                uow.begin(snapshot=True)
            return work(uow)

        return self._repeat(worker, attempt)

    def _writing(self, worker: Worker, work: Callable[[UnitOfWork], T]) -> T:
        def attempt(uow: UnitOfWork) -> T:
            uow.begin()
            result = work(uow)
            uow.commit()
            return result

        return self._repeat(worker, attempt)

    def _repeat(self, worker: Worker, attempt: Callable[[UnitOfWork], T]) -> T:
        """Run an attempt until it succeeds or fails for good; a connection that broke is replaced once."""
        doubt: CommitUnknown | None = None
        failure: MetaError = Stale(
            "concurrent changes kept colliding; repeat the call", reason=Reason.CONFLICT
        )
        breaks = 0
        for number in range(ATTEMPTS):
            try:
                return self._attempt(worker, attempt)
            except Collision:
                time.sleep(_BACKOFF_SECONDS * (2**number) * random.SystemRandom().uniform(0.5, 1.5))
            except CommitUnknown as unknown:
                doubt, breaks = unknown, breaks + 1
                if not unknown.recorded or breaks > 1:
                    break
            except Disconnected as broken:
                breaks += 1
                if breaks > 1:
                    failure = broken
                    break
        try:
            # Once a COMMIT was in doubt, no later failure says that nothing was kept.
            raise doubt or failure
        finally:
            del doubt, failure  # whose frames must not keep them

    def _attempt(self, worker: Worker, attempt: Callable[[UnitOfWork], T]) -> T:
        uow = worker.unit = self._unit(worker.connection())
        try:
            return attempt(uow)
        except (CommitUnknown, Disconnected):
            uow.broken = True
            raise
        finally:
            _end(worker, uow)


def _end(worker: Worker, uow: UnitOfWork) -> None:
    """Undo what a unit did not commit, and drop a connection that is of no use any more."""
    uow.rollback()
    worker.unit = None  # only now: the database may never answer to the rollback either
    if uow.broken:
        worker.drop()
