"""The rule that a statement binds whose rows it touches.

A statement over a table with an owner names ``:owner_id``: as a condition that all its rows must meet, or
as a value that it writes. Or it is marked by ``system()``, with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.sql import operators, visitors

import morag_meta
from morag_meta.db.schema import metadata
from morag_meta.db.statements import EVERYONE

OWNED: Final = frozenset(table.name for table in metadata.tables.values() if "owner_id" in table.c)
"""The tables whose rows have an owner."""

_OURS: Final = str(Path(morag_meta.__file__).parent)


def fault_of(statement: Any, parameters: Collection[str] = ()) -> str:
    """Say what is wrong with a statement that is run with parameters of these names, or nothing."""
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
    return _told(statement, touched)


def _told(statement: Any, touched: Collection[str]) -> str:
    return f"binds no owner of {', '.join(sorted(touched))}: {statement}"


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
