"""The statements of an export: every row of one user, of every table that has owners, without its secrets.

The tables are those of the schema, so that none can be forgotten; which columns are withheld stands here,
and a test looks at the name of every column.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import metadata, users
from morag_meta.db.unit import Row, Unit

WITHHELD: Final[Mapping[str, frozenset[str]]] = {
    "users": frozenset({"password_hash"}),
    "sessions": frozenset({"refresh_hash", "previous_hash"}),
    "password_resets": frozenset({"token_hash"}),
    "api_keys": frozenset({"key_hash"}),
    "servers": frozenset({"password_sealed", "api_key_sealed"}),
    "jobs": frozenset({"lease_token"}),
    "request_records": frozenset({"fingerprint"}),
}
"""The columns that no export shows, by table: secrets, what is made of them, and sealed credentials."""
TABLES: Final = (
    users.name,
    *sorted(name for name, table in metadata.tables.items() if "owner_id" in table.c),
)
"""What is exported, in this order."""


class ExportStore:
    """Reads what is a user's."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def page(self, owner_id: str, table: str, after: Row | None, limit: int) -> list[Row]:
        """Give at most ``limit`` rows of a user, in the order of the primary key, after the row ``after``."""
        keys = metadata.tables[table].primary_key.columns.keys()
        position = {} if after is None else {f"after_{key}": after[key] for key in keys}
        statement = _page(table, following=after is not None)
        return self._unit.all(statement, owner_id=owner_id, limit=limit, **position)


@cache
def _page(name: str, *, following: bool) -> sa.Select[Any]:
    table = metadata.tables[name]
    shown = [column for column in table.c if column.name not in WITHHELD.get(name, ())]
    owner = table.c.id if table is users else table.c.owner_id
    keys = list(table.primary_key.columns)
    page = sa.select(*shown).where(owner == sa.bindparam("owner_id"))
    if following:
        page = page.where(_after(keys))
    return page.order_by(*keys).limit(sa.bindparam("limit", type_=sa.Integer))


def _after(keys: list[sa.Column[Any]]) -> sa.ColumnElement[bool]:
    """Let pass what follows a row in the order of keys: the first greater, or equal and the rest after it."""
    first, *rest = keys
    last: sa.BindParameter[Any] = sa.bindparam(f"after_{first.name}", type_=first.type)
    return sa.or_(first > last, sa.and_(first == last, _after(rest))) if rest else first > last
