"""The statements that list documents, one for each shape of filter and order, built once.

What does not live here: every other statement over documents, and running them (``store.py``).
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import documents
from morag_meta.db.statements import EVERYONE, after_row, everyone, owned
from morag_meta.documents.identity import NO_DATABASE
from morag_meta.documents.listing import Filter, Order
from morag_meta.documents.rules import State

_c = documents.c
_ESCAPE: Final = "!"


def page_statement(
    reach: str, chosen: Filter, order: Order, dialect: str, *, following: bool
) -> sa.Select[Any]:
    """Give the statement of a page: of one owner's documents or everybody's, the first or a following one."""
    return _statement(_shape(chosen), order, dialect, of_everyone=reach == EVERYONE, following=following)


def page_parameters(
    chosen: Filter, order: Order, dialect: str, after: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Give what the statement binds, but for the owner and the limit."""
    values: dict[str, Any] = {
        "in_database": chosen.database_id,
        "states": list(chosen.states),
        "types": list(chosen.types),
        "name_pattern": name_pattern(chosen.name_contains, dialect),
        "create_time_start": chosen.create_time_start,
        "create_time_end": chosen.create_time_end,
        "external_id": chosen.external_id,
        "content_hash": chosen.content_hash,
    }
    bound = {_BINDS[part]: values[_BINDS[part]] for part in _shape(chosen) if part in _BINDS}
    if after is not None:
        bound |= {f"after_{order.column}": after[order.column], "after_id": after["id"]}
    return bound


def name_pattern(text: str, dialect: str) -> str:
    """Give the pattern of names that contain a text, A to Z in either case.

    MariaDB folds every letter of Unicode or none, so there it is a regular expression that names both
    cases of each ASCII letter; elsewhere it is a LIKE pattern in lower case.
    """
    if dialect == "mariadb":
        return "".join(
            f"[{character.lower()}{character.upper()}]"
            if character in string.ascii_letters
            else (character if character.isalnum() or ord(character) > 127 else f"\\{character}")
            for character in text
        )
    folded = "".join(character.lower() if character.isascii() else character for character in text)
    for special in (_ESCAPE, "%", "_"):
        folded = folded.replace(special, _ESCAPE + special)
    return f"%{folded}%"


_BINDS: Final = {
    "database": "in_database",
    "states": "states",
    "types": "types",
    "name": "name_pattern",
    "start": "create_time_start",
    "end": "create_time_end",
    "external_id": "external_id",
    "content_hash": "content_hash",
}
"""The parts of a shape that bind a value, and its name."""


def _shape(chosen: Filter) -> frozenset[str]:
    """Say which conditions a filter has."""
    parts = {
        "database": chosen.database_id not in ("", NO_DATABASE),
        "no_database": chosen.database_id == NO_DATABASE,
        "states": bool(chosen.states),
        "live": not chosen.show_deleted and not chosen.states,
        "types": bool(chosen.types),
        "name": bool(chosen.name_contains),
        "start": chosen.create_time_start is not None,
        "end": chosen.create_time_end is not None,
        "external_id": bool(chosen.external_id),
        "content_hash": bool(chosen.content_hash),
    }
    return frozenset(part for part, present in parts.items() if present)


@lru_cache(maxsize=1024)
def _statement(
    shape: frozenset[str], order: Order, dialect: str, *, of_everyone: bool, following: bool
) -> sa.Select[Any]:
    conditions = [everyone() if of_everyone else owned(documents)]
    conditions += [_condition(part, dialect) for part in sorted(shape)]
    if following:
        conditions += after_row(_c[order.column], _c.id, descending=order.descending)
    columns = [_c[order.column], _c.id]
    if dialect == "postgresql" and "no_database" in shape and order.column == "create_time":
        # Null in every row, so it changes no order; but only by it PostgreSQL sees that the index of a
        # database's documents has them in this order already.
        columns.insert(0, _c.database_id)
    keys = [column.desc() if order.descending else column.asc() for column in columns]
    limit: sa.BindParameter[int] = sa.bindparam("limit", type_=sa.Integer)
    return sa.select(documents).where(*conditions).order_by(*keys).limit(limit)


_CONDITIONS: Final[Mapping[str, sa.ColumnElement[bool]]] = {
    "database": _c.database_id == sa.bindparam("in_database"),
    "no_database": _c.database_id.is_(None),
    "live": _c.state != State.DELETED.value,
    "states": _c.state.in_(sa.bindparam("states", expanding=True)),
    "types": _c.type.in_(sa.bindparam("types", expanding=True)),
    "start": _c.create_time >= sa.bindparam("create_time_start", type_=_c.create_time.type),
    "end": _c.create_time < sa.bindparam("create_time_end", type_=_c.create_time.type),
    "external_id": _c.external_id == sa.bindparam("external_id"),
    "content_hash": _c.content_hash == sa.bindparam("content_hash"),
}


def _condition(part: str, dialect: str) -> sa.ColumnElement[bool]:
    if part != "name":
        return _CONDITIONS[part]
    pattern: sa.BindParameter[str] = sa.bindparam("name_pattern", type_=sa.String())
    if dialect == "mariadb":
        return _c.name.regexp_match(pattern)
    # Under the collation "C" PostgreSQL's lower() folds A to Z alone, as SQLite's does.
    name = sa.collate(_c.name, "C") if dialect == "postgresql" else _c.name
    return sa.func.lower(name).like(pattern, escape=_ESCAPE)
