"""The rule that a statement binds whose rows it touches, and the watch over every statement of a test run.

A statement over a table with an owner names ``:owner_id``: as a condition that all its rows must meet, or
as a value that it writes. Or it names ``:grantee_id``, and finds its rows by the grants to that user alone,
each row by its own database. Or it is marked by ``system()``, with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
import sqlalchemy as sa
from sqlalchemy.sql import operators, visitors

import morag_meta
from morag_meta.db import unit as db_unit
from morag_meta.db.schema import database_grants, metadata
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Unit

OWNED: Final = frozenset(table.name for table in metadata.tables.values() if "owner_id" in table.c)
"""The tables whose rows have an owner."""

_PLACE: Final = {"databases": "databases.id"}
"""The column that says in which database a row is, where it is not ``database_id``."""
_OURS: Final = str(Path(morag_meta.__file__).parent)


def fault_of(statement: Any, parameters: Collection[str] = ()) -> str:
    """Say what is wrong with a statement that is run with parameters of these names, or nothing."""
    if isinstance(statement, sa.CompoundSelect):
        return "".join(fault_of(part, parameters) for part in statement.selects)
    touched = _tables(statement) & OWNED
    if not touched or statement.get_execution_options().get("system_reason"):
        return ""
    if isinstance(statement, sa.Insert):
        written = {getattr(column, "name", column) for column in (statement._values or {})}  # noqa: SLF001
        return "" if "owner_id" in {*written, *parameters} else _told(statement, touched)
    if isinstance(statement, sa.TextClause):
        return _told(statement, touched)
    condition = getattr(statement, "whereclause", None)
    if condition is not None and any(_binds(part) for part in _conjuncts(condition)):
        return ""
    return "" if _is_shared(statement) else _told(statement, touched)


def _told(statement: Any, touched: Collection[str]) -> str:
    return f"binds neither owner nor grantee of {', '.join(sorted(touched))}: {statement}"


def _tables(statement: Any) -> set[str]:
    found = set()
    for element in visitors.iterate(statement):
        table = element if isinstance(element, sa.Table) else getattr(element, "table", None)
        if isinstance(table, sa.Table):
            found.add(table.name)
        elif isinstance(element, sa.TextClause):
            found |= {name for name in OWNED if name in element.text}
    return found


def _conjuncts(condition: Any) -> Iterator[Any]:
    """Give the conditions of which each must hold."""
    if getattr(condition, "operator", None) is operators.and_:
        for part in condition.clauses:
            yield from _conjuncts(part)
    else:
        yield getattr(condition, "element", condition)


def _binds(part: Any) -> bool:
    """Whether a condition lets pass the bound owner's rows alone, or everybody's to who binds EVERYONE."""
    if getattr(part, "operator", None) is operators.or_:
        return all(_binds(getattr(one, "element", one)) for one in part.clauses)
    if getattr(part, "operator", None) is not operators.eq:
        return False
    left, right = part.left, part.right
    if getattr(left, "name", "") == "owner_id" and _is_owner(right):
        return True
    return _is_owner(left) and getattr(right, "value", None) == EVERYONE


def _is_owner(element: Any) -> bool:
    return isinstance(element, sa.BindParameter) and element.key == "owner_id"


def _froms(statement: sa.Select[Any]) -> list[Any]:
    """Give what a statement reads from; not by its columns, some of which no plain compiler can write."""
    return list(statement.with_only_columns(sa.literal(1), maintain_column_froms=True).get_final_froms())


def _is_shared(statement: Any) -> bool:
    """Whether a statement finds rows by the bound grantee's grants, each by the database that it is in."""
    condition = getattr(statement, "whereclause", None)
    conditions = [] if condition is None else list(_conjuncts(condition))
    froms = _froms(statement) if isinstance(statement, sa.Select) else [statement.table]
    tables = set()
    while froms:
        one = froms.pop()
        if isinstance(one, sa.Join) and not one.isouter and not one.full:
            froms += [one.left, one.right]
            conditions += _conjuncts(one.onclause)
        elif isinstance(one, sa.Table):
            tables.add(one)
        else:
            return False  # what it is made of is not seen here
    equal = [
        (str(part.left), str(part.right))
        for part in conditions
        if getattr(part, "operator", None) is operators.eq
    ]
    opened = [table for table in tables if table.name in OWNED and table is not database_grants]
    return ("database_grants.grantee_id", ":grantee_id") in equal and all(
        ("database_grants.database_id", _PLACE.get(table.name, f"{table.name}.database_id")) in equal
        for table in opened
    )


class Watch:
    """Judges each statement that the service's own code runs, once, and remembers what is wrong."""

    def __init__(self) -> None:
        self._judged: dict[tuple[int, tuple[str, ...]], Any] = {}
        self.faults: list[str] = []

    def judge(self, statement: Any, parameters: tuple[str, ...]) -> None:
        """Look at a statement; it is kept, so that no other one is taken for it."""
        if (id(statement), parameters) not in self._judged:
            self._judged[id(statement), parameters] = statement
            fault = fault_of(statement, parameters)
            if fault:
                self.faults.append(fault)

    def __len__(self) -> int:
        """Count the statements that were judged."""
        return len(self._judged)

    def spied(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap one of a unit's ways of running statements."""

        def watched(unit: Unit, statement: Any, *more: Any, **parameters: Any) -> Any:
            if _asked_by().startswith(_OURS):
                given = more[0] if more else parameters
                self.judge(statement, tuple(given[0] if isinstance(given, list) and given else given))
            return run(unit, statement, *more, **parameters)

        return watched


def _asked_by() -> str:
    """Name the file of whoever asked a unit to run something."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - only the stack says who asked
    while frame is not None and frame.f_code.co_filename in (__file__, db_unit.__file__):
        frame = frame.f_back
    return frame.f_code.co_filename if frame is not None else ""


@pytest.fixture(scope="session", autouse=True)
def statements_watched() -> Iterator[Watch]:
    """Judge every statement that runs in this process during the tests; the last test's end tells."""
    watch = Watch()
    patch = pytest.MonkeyPatch()
    for way in ("_execute", "run_soon", "run_many"):
        patch.setattr(Unit, way, watch.spied(getattr(Unit, way)))
    yield watch
    patch.undo()
    assert not watch.faults, "\n".join(watch.faults)
