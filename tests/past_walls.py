"""Lets tests past row security, where ``MORAG_TEST_ROW_SECURITY`` has it on.

What a test itself reads and writes, past the stores, it does as the administrator, or in a unit of work as a
role that policies let through until its end. All that the service runs goes through its policies.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.sql import visitors

from morag_meta.db import unit as db_unit
from morag_meta.db.policies import OWNERS
from morag_meta.db.reach import NoReach, reach_of
from morag_meta.db.unit import Unit
from tests.backends.walled import IS_ON, TESTS, administrator, is_walled

_HERE: Final = str(Path(__file__).resolve().parent)
_BETWEEN: Final = (
    __file__,
    *(str(module.__file__) for module in (db_unit, contextlib)),
    str(Path(__file__).resolve().parent / "house" / "owners.py"),
)
_SQLALCHEMY: Final = str(Path(sa.__file__).parent)


def _asked_by_test() -> bool:
    """Whether the nearest caller that is neither SQLAlchemy's nor the unit's is a test."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - only the stack says who asked
    while frame is not None:
        name = frame.f_code.co_filename
        if name not in _BETWEEN and not name.startswith(_SQLALCHEMY):
            return name.startswith(_HERE)
        frame = frame.f_back
    return False


def _as_test(unit: Unit) -> None:
    """Let policies pass what the unit runs until its transaction ends; without one it stays bound."""
    if not unit.in_transaction:
        return
    with contextlib.closing(unit._connection.connection.cursor()) as cursor:  # noqa: SLF001
        cursor.execute(f"SET LOCAL ROLE {TESTS}")


def _connect(connect: Callable[..., sa.Connection]) -> Callable[..., sa.Connection]:
    def connected(engine: sa.Engine) -> sa.Connection:
        if is_walled(engine.url) and _asked_by_test():
            return connect(administrator(engine.url))
        return connect(engine)

    return connected


def _connection(connection: property) -> property:
    def given(unit: Unit) -> sa.Connection:
        found: sa.Connection = connection.__get__(unit)
        asked_by = sys._getframe(1).f_code.co_filename  # noqa: SLF001 - only the stack says who asked
        if _is_walled(unit) and asked_by.startswith(_HERE):
            _as_test(unit)
        return found

    return property(given)


def _ran(run: Callable[..., Any]) -> Callable[..., Any]:
    def ran(unit: Unit, statement: Any, *more: Any, **parameters: Any) -> Any:
        given = more[0] if more else parameters
        first: Any = given[0] if isinstance(given, list) else given
        reach = reach_of(statement, first)
        if _is_walled(unit) and not reach and _owned(statement) and _asked_by_test():
            if not unit.in_transaction:
                with administrator(unit._connection.engine.url).connect() as past:  # noqa: SLF001
                    return more[-1](past.execute(statement, given))
            unit.send_begin()
            _as_test(unit)
        return run(unit, statement, *more, **parameters)

    return ran


def _owned(statement: Any) -> bool:
    """Whether a statement is over a table whose rows have owners."""
    tables = (getattr(element, "table", element) for element in visitors.iterate(statement))
    return any(isinstance(table, sa.Table) and table.name in OWNERS for table in tables)


def _is_walled(unit: Unit) -> bool:
    return not isinstance(unit._reach, NoReach)  # noqa: SLF001


def pytest_configure() -> None:
    """Before anything else wraps the unit of work, let tests' own statements through."""
    if not IS_ON:
        return
    patch = pytest.MonkeyPatch()  # for the whole run
    patch.setattr(sa.Engine, "connect", _connect(sa.Engine.connect))
    patch.setattr(Unit, "connection", _connection(Unit.connection))  # type: ignore[arg-type]
    for way in ("_execute", "run_soon", "run_many"):
        patch.setattr(Unit, way, _ran(getattr(Unit, way)))
