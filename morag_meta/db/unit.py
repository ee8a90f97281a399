"""A unit of database work: one connection, one time, one transaction at most.

It emits BEGIN, COMMIT and ROLLBACK itself, because the engine is in AUTOCOMMIT. Without ``begin`` each
statement stands alone and costs one round trip. The stores hang on its subclass in ``uow.py``.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import sqlalchemy as sa

from morag_meta.db.faults import Disconnected, translate
from morag_meta.errors import Reason, Unavailable

Row = Mapping[str, Any]
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

    def __init__(self) -> None:
        """Make the error."""
        super().__init__(
            "the connection broke during COMMIT; repeat the call with the same request_id",
            reason=Reason.COMMIT_UNKNOWN,
        )


class Unit:
    """Runs statements on one connection; see ``uow.UnitOfWork`` for what is in it for a feature.

    ``busy_since`` is the monotonic time at which the statement under way began, 0.0 between statements:
    the watchdog reads it from another thread.
    """

    def __init__(self, connection: sa.Connection, dialect: str, tell: Tell = _tell_nobody) -> None:
        """Take a connection that nobody else uses; ``tell`` hears of what was announced and committed."""
        self.connection = connection
        self.dialect = dialect
        self.busy_since = 0.0
        self.in_transaction = False
        self.recorded = False  # a request record of this transaction makes its repetition safe
        self._effects: list[Callable[[], None]] = []
        self._announced: dict[str, None] = {}
        self._tell = tell

    @cached_property
    def now(self) -> dt.datetime:
        """The one time of everything that this unit does: aware UTC."""
        return dt.datetime.now(dt.UTC)

    def begin(self, *, snapshot: bool = False) -> None:
        """Open a transaction: to write, or with ``snapshot`` to read several statements that agree.

        Raises:
            Unavailable: the database is away, or SQLite's writer lock is not to be had.
        """
        begins = _BEGIN_SNAPSHOT if snapshot else _BEGIN_WRITE
        if snapshot and self.dialect == "mariadb":
            self._plain("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._plain(begins.get(self.dialect, "BEGIN"))
        self.in_transaction = True

    def commit(self) -> None:
        """Keep what was done, then run the effects that wait for it.

        Raises:
            CommitUnknown: the connection broke under way.
            Collision: the database chose another transaction; nothing was kept.
        """
        if self.in_transaction:
            try:
                self._plain("COMMIT")
            except Disconnected as broken:
                raise CommitUnknown from broken
            self.in_transaction = False
        effects, self._effects = self._effects, []
        announced, self._announced = self._announced, {}
        if announced:
            self._tell(tuple(announced))
        for effect in effects:
            effect()

    def rollback(self) -> None:
        """Undo what was not committed; never raises, as a broken connection has rolled back itself."""
        self._effects.clear()
        self._announced.clear()
        if self.in_transaction:
            self.in_transaction = False
            try:
                self._plain("ROLLBACK")
            except Exception:  # noqa: BLE001 - the connection is of no use any more, whatever happened
                self.connection.invalidate()

    def after_commit(self, effect: Callable[[], None]) -> None:
        """Run ``effect`` in this thread right after COMMIT returned; never after a rollback."""
        self._effects.append(effect)

    def announce(self, topic: str) -> None:
        """Have the listeners of the database told of ``topic`` right after COMMIT, in this thread."""
        self._announced[topic] = None

    def one(self, statement: sa.Executable, **parameters: Any) -> Row | None:
        """Give the first row as a mapping, or None."""
        result = self._execute(statement, parameters)
        row = result.first()
        return None if row is None else cast("Row", row._mapping)  # noqa: SLF001 - its public name

    def all(self, statement: sa.Executable, **parameters: Any) -> list[Row]:
        """Give all rows as mappings."""
        return cast("list[Row]", self._execute(statement, parameters).mappings().all())

    def run(self, statement: sa.Executable, **parameters: Any) -> int:
        """Run a statement that changes rows, and give their number."""
        return self._execute(statement, parameters).rowcount

    def run_many(self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement once for each set of parameters."""
        if rows:
            self._execute(statement, list(rows))

    def _execute(self, statement: sa.Executable, parameters: Any) -> sa.CursorResult[Any]:
        self.busy_since = time.monotonic()
        try:
            return self.connection.execute(statement, parameters)
        except Exception as fault:
            raise self._translated(fault, parameters) from fault
        finally:
            self.busy_since = 0.0

    def _plain(self, text: str) -> None:
        self.busy_since = time.monotonic()
        try:
            self.connection.exec_driver_sql(text)
        except Exception as fault:
            raise self._translated(fault, None) from fault
        finally:
            self.busy_since = 0.0

    def _translated(self, fault: Exception, parameters: Any) -> Exception:
        return translate(fault, parameters if isinstance(parameters, Mapping) else None)
