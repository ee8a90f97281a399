"""A unit of database work: one connection, one time, one transaction at most.

It emits BEGIN, COMMIT and ROLLBACK itself, because the engine is in AUTOCOMMIT. Without ``begin`` each
statement stands alone and costs one round trip; on PostgreSQL BEGIN travels with the first statement. The
stores hang on its subclass in ``uow.py``, and how a statement is made ready stands in ``prepared.py``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import sqlalchemy as sa

from morag_meta.db.faults import Disconnected, adopt, translate
from morag_meta.db.prepared import Prepared, Row, all_of, count_of, first_of, prepare
from morag_meta.db.reach import reach_on
from morag_meta.errors import Reason, Unavailable

__all__ = ["CommitUnknown", "Row", "Tell", "Unit"]

T = TypeVar("T")
Tell = Callable[[tuple[str, ...]], None]

_BEGIN_WRITE = {"sqlite": "BEGIN IMMEDIATE"}
_BEGIN_SNAPSHOT = {
    "sqlite": "BEGIN",
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "mariadb": "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
}


def _tell_nobody(topics: tuple[str, ...]) -> None:
    del topics


class CommitUnknown(Unavailable):
    """The connection broke while COMMIT was under way: the change may or may not be kept."""

    def __init__(self, *, recorded: bool = False) -> None:
        """Make the error; ``recorded`` says that a request record makes repeating safe."""
        super().__init__(
            "the connection broke during COMMIT; repeat the call with the same request_id",
            reason=Reason.COMMIT_UNKNOWN,
        )
        self.recorded = recorded


class Unit:
    """Runs statements on one connection; see ``uow.UnitOfWork`` for what is in it for a feature.

    ``busy_since`` is the monotonic time at which the statement under way began, 0.0 between statements:
    the watchdog reads it from another thread.
    """

    def __init__(
        self,
        connection: sa.Connection,
        dialect: str,
        tell: Tell = _tell_nobody,
        *,
        default_quotas: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Take a connection that nobody else uses; ``tell`` hears of what was announced and committed.

        ``default_quotas`` bound users who have no limits of their own, by resource.
        """
        self.default_quotas = default_quotas
        self._connection = connection
        self._unsent = b""  # what travels with the next statement: BEGIN, and what was to run soon
        self._begun = False  # whether BEGIN has been sent
        self._reach = reach_on(connection, dialect)
        self.dialect = dialect
        self.busy_since = 0.0
        self.in_transaction = False
        self._failed = False  # a statement of the transaction was refused, and perhaps the whole of it
        self.recorded = False  # a request record of this transaction makes its repetition safe
        self.broken = False  # the connection is not to be used again
        self.grown: dict[str, set[str]] = {}  # of what which users have more; see db/counted.py
        self._effects: list[Callable[[], None]] = []
        self._announced: dict[str, None] = {}
        self._tell = tell

    @property
    def connection(self) -> sa.Connection:
        """The connection, in the transaction that was begun, for what goes past the stores."""
        self.send_begin()
        return self._connection

    @property
    def _is_heard(self) -> bool:
        """Whether somebody listens to SQLAlchemy's events of statements, who is to hear of all of them."""
        return bool(self._connection.engine.dispatch.before_cursor_execute)

    @property
    def _is_rolled_back(self) -> bool:
        """Whether the database ended the transaction itself, as SQLite does when the disk is full."""
        if self.dialect != "sqlite":
            return False
        driver: Any = self._connection.connection.driver_connection
        return not driver.in_transaction

    @cached_property
    def now(self) -> dt.datetime:
        """This process's one time for all that this unit does, aware UTC; what ends is by ``db/clock.py``."""
        return dt.datetime.now(dt.UTC)

    def begin(self, *, snapshot: bool = False) -> None:
        """Open a transaction: to write, or with ``snapshot`` to read several statements that agree.

        Raises:
            Unavailable: the database is away, or SQLite's writer lock is not to be had; on PostgreSQL that
                shows at the first statement.
        """
        if self.in_transaction:
            raise RuntimeError("a transaction is open already")
        begins = _BEGIN_SNAPSHOT if snapshot else _BEGIN_WRITE
        if snapshot and self.dialect == "mariadb":
            self._plain("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        begin = begins.get(self.dialect, "BEGIN")
        if self.dialect == "postgresql" and not self._is_heard:
            self._unsent = f"{begin}; ".encode()
        else:
            self._plain(begin)
            self._begun = True
        self.in_transaction = True

    def send_begin(self) -> None:
        """Begin now, where that would otherwise travel with the first statement.

        Raises:
            Unavailable: as ``begin``.
        """
        if self._unsent:
            self._plain("")

    def commit(self) -> None:
        """Keep what was done, then run the effects that wait for it.

        Raises:
            CommitUnknown: the connection broke under way.
            Collision: the database chose another transaction; nothing was kept.
            RuntimeError: a statement failed, and whoever caught its error goes on all the same.
        """
        self._check()
        if self.in_transaction:
            if self._begun:
                try:
                    self._plain("COMMIT")
                except Disconnected as broken:
                    raise CommitUnknown(recorded=self.recorded) from broken
            self._leave_transaction()
        effects, self._effects = self._effects, []
        announced, self._announced = self._announced, {}
        if announced:
            self._tell(tuple(announced))
        for effect in effects:
            effect()

    def rollback(self) -> None:
        """Undo what was not committed, and leave the connection as it came, or ``broken``; never raises."""
        self._effects.clear()
        self._announced.clear()
        begun, self._failed = self._begun, False
        self._leave_transaction()
        try:
            if begun and not self._connection.invalidated and not self._is_rolled_back:
                self._plain("ROLLBACK")
            # What SQLAlchemy ran itself has begun something in its books, if not in the database.
            self._connection.rollback()
        except Exception:  # noqa: BLE001 - the connection is of no use any more, whatever happened
            self.broken = True
        self.broken |= self._connection.invalidated

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Run ``effect`` in this thread right after COMMIT returned; never after a rollback."""
        self._effects.append(effect)

    def announce(self, topic: str) -> None:
        """Have the listeners of the database told of ``topic`` right after COMMIT, in this thread."""
        self._announced[topic] = None

    def one(self, statement: sa.Executable, **parameters: Any) -> Row | None:
        """Give the first row as a mapping, or None."""
        return self._execute(statement, parameters, Prepared.first, first_of)

    def all(self, statement: sa.Executable, **parameters: Any) -> list[Row]:
        """Give all rows as mappings."""
        return self._execute(statement, parameters, Prepared.all, all_of)

    def run(self, statement: sa.Executable, **parameters: Any) -> int:
        """Run a statement that changes rows, and give their number."""
        return self._execute(statement, parameters, Prepared.count, count_of)

    def run_soon(self, statement: sa.Executable, **parameters: Any) -> None:
        """Run a statement of which nobody awaits anything, at the latest before the next one.

        On PostgreSQL it travels with that, most often with COMMIT, and so does its error.
        """
        prepared = None
        if self._begun and self.dialect == "postgresql" and not self._is_heard:
            prepared = prepare(statement, self._connection.dialect, tuple(parameters))
        if prepared is None:
            self.run(statement, **parameters)
            return
        self._check()
        with contextlib.closing(self._connection.connection.cursor()) as cursor:
            told = self._reach.before(statement, parameters, kept=True)
            self._unsent += prepared.written_out(cursor, parameters, told) + b"; "

    def run_many(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement once for each set of parameters."""
        if not rows:
            return
        self._check()
        connection = self.connection
        self.busy_since = time.monotonic()
        try:
            option = self._reach.option(statement, rows[0], kept=self.in_transaction)
            connection.execute(statement, list(rows), execution_options=option)
        except Exception as fault:  # noqa: BLE001 - sorted by translate
            raise self._fail(fault) from None
        finally:
            self.busy_since = 0.0

    def _execute(
        self,
        statement: sa.Executable,
        parameters: dict[str, Any],
        take: Callable[[Prepared, Any], T],
        take_result: Callable[[sa.CursorResult[Any]], T],
    ) -> T:
        """Run a statement and take what it gives, prepared unless somebody listens to SQLAlchemy."""
        self._check()
        dialect = self._connection.dialect
        prepared = None if self._is_heard else prepare(statement, dialect, tuple(parameters))
        connection = self.connection if prepared is None else self._connection
        self.busy_since = time.monotonic()
        try:
            if prepared is None:
                option = self._reach.option(statement, parameters, kept=self.in_transaction)
                return take_result(connection.execute(statement, parameters, execution_options=option))
            cursor = connection.connection.cursor()
            try:
                told = self._reach.before(statement, parameters, kept=self.in_transaction)
                prepared.execute(cursor, parameters, self._take_unsent(), told)
                return take(prepared, cursor)
            finally:
                cursor.close()
        except Exception as fault:  # noqa: BLE001 - sorted by translate
            raise self._fail(fault, parameters) from None
        finally:
            self.busy_since = 0.0

    def _leave_transaction(self) -> None:
        self.in_transaction, self._begun, self._unsent = False, False, b""
        self._reach.forget()

    def _plain(self, text: str) -> None:
        """Run a statement of transactions, which neither takes nor gives anything."""
        self._check()
        before = self._take_unsent()
        self.busy_since = time.monotonic()
        try:
            if self._is_heard and not before:
                self._connection.exec_driver_sql(text)
                return
            cursor = self._connection.connection.cursor()
            try:
                cursor.execute(before + text.encode() if before else text)
            finally:
                cursor.close()
        except Exception as fault:  # noqa: BLE001 - sorted by translate
            raise self._fail(fault) from None
        finally:
            self.busy_since = 0.0

    def _take_unsent(self) -> bytes:
        before, self._unsent = self._unsent, b""
        self._begun |= bool(before)
        return before

    def _fail(self, fault: Exception, parameters: Mapping[str, Any] | None = None) -> Exception:
        """Give the domain error of a fault, without the driver's words; a transaction ends with it.

        Databases differ in what is left of a transaction after that: all, nothing, or a refusal of
        whatever comes next. Here it is always the last.
        """
        self._failed = self.in_transaction
        return translate(adopt(fault, self._connection), parameters)

    def _check(self) -> None:
        if self._failed:
            raise RuntimeError("a statement of this transaction failed; it can only be rolled back")
