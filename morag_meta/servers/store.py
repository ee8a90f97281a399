"""Every statement on the table ``servers``.

What does not live here: the databases on a server (``databases/store.py``) and what a secret's sealed
form is (``servers/secrets.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from morag_meta.auth.narrowing import Whose, owner_of
from morag_meta.db.counted import Resource, add, counted
from morag_meta.db.schema import servers
from morag_meta.db.statements import EVERYONE, after_row, everyone, narrow, owned, reach
from morag_meta.db.text import contains
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import not_found

_ID = servers.c.id == sa.bindparam("id")
_FIXED = ("id", "owner_id", "create_time")
_NEW: dict[str, Any] = {
    column.name: sa.bindparam(f"new_{column.name}") for column in servers.c if column.name not in _FIXED
}

_GET = sa.select(servers).where(_ID, reach(servers))
_LOCK = _GET.with_for_update()
_HOLD = sa.select(servers.c.id).where(_ID, owned(servers)).with_for_update(read=True)
_ADD = counted(sa.insert(servers))
_CHANGE = sa.update(servers).where(_ID, owned(servers)).values(_NEW)
_REMOVE = sa.delete(servers).where(_ID, owned(servers))
_REMOVE_ALL = sa.delete(servers).where(owned(servers))


@lru_cache
def _page(of_everyone: bool, after: bool, kinds: bool, active: bool, name: bool) -> sa.Select[Any]:  # noqa: FBT001 - a shape
    statement = sa.select(servers).where(everyone() if of_everyone else owned(servers))
    if after:
        statement = statement.where(*after_row(servers.c.create_time, servers.c.id, descending=True))
    if kinds:
        statement = statement.where(servers.c.kind.in_(sa.bindparam("kinds", expanding=True)))
    if active:
        statement = statement.where(servers.c.active == sa.bindparam("active"))
    if name:
        statement = statement.where(contains(servers.c.name, sa.bindparam("name", type_=sa.String())))
    newest_first = (servers.c.create_time.desc(), servers.c.id.desc())
    return statement.order_by(*newest_first).limit(sa.bindparam("limit", type_=sa.Integer))


class ServerStore:
    """The servers of all owners, each reached through its owner."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def get(self, reach: Whose, server_id: str) -> Row:
        """Give one server.

        Raises:
            NotFound: there is none within reach.
        """
        return self._found(_GET, reach, server_id)

    def lock(self, reach: Whose, server_id: str) -> Row:
        """Give one server, locked until the transaction ends.

        Raises:
            NotFound: there is none within reach.
        """
        return self._found(_LOCK, reach, server_id)

    def hold(self, reach: Whose, server_id: str) -> None:
        """Keep one owner's server from being changed or deleted until the transaction ends.

        Raises:
            NotFound: that owner has no such server within reach.
        """
        self._found(_HOLD, reach, server_id)

    def page(
        self,
        reach: Whose,
        after: Mapping[str, Any] | None,
        limit: int,
        *,
        kinds: Sequence[str] = (),
        active: bool | None = None,
        name_contains: str = "",
    ) -> list[Row]:
        """List at most ``limit`` servers of an owner or of EVERYONE, newest first, after a row's keys.

        A server matches when it is of one of the kinds, is active or not as asked, and its name contains
        ``name_contains``, letter case counting; an empty filter matches all.
        """
        after = after or {}
        page = _page(
            owner_of(reach) == EVERYONE, bool(after), bool(kinds), active is not None, bool(name_contains)
        )
        statement, bound = narrow(page, servers.c.id, reach)
        filters = {"kinds": list(kinds), "active": active, "name": name_contains}
        given = {key: value for key, value in filters.items() if value not in ([], None, "")}
        position = {f"after_{key}": value for key, value in after.items()}
        return self._unit.all(statement, limit=limit, **bound, **position, **given)

    def add(
        self,
        server_id: str,
        owner_id: str,
        *,
        name: str,
        kind: str,
        host: str,
        port: int,
        **values: Any,
    ) -> Row:
        """Add a server; ``values`` are further columns, secrets sealed.

        Raises:
            AlreadyExists: the owner has a server of that name.
            NotFound: there is no such owner.
        """
        now: dt.datetime = self._unit.now
        row = dict.fromkeys((column.name for column in servers.c), None) | {"active": False, "config": {}}
        row |= {"id": server_id, "owner_id": owner_id, "name": name, "kind": kind, "host": host, "port": port}
        row |= {"revision": 1, "create_time": now, "update_time": now} | values
        add(self._unit, _ADD, row, Resource.SERVERS)
        return row

    def change(self, row: Row, **values: Any) -> Row:
        """Write columns of a locked row, and give it as it is then.

        Raises:
            AlreadyExists: the owner has another server of the new name.
        """
        new = {**row, **values, "revision": row["revision"] + 1, "update_time": self._unit.now}
        written = {f"new_{name}": new[name] for name in _NEW}
        self._unit.run(_CHANGE, id=row["id"], owner_id=row["owner_id"], **written)
        return new

    def remove(self, row: Row) -> None:
        """Delete a locked row that nothing refers to any more."""
        self._unit.run(_REMOVE, id=row["id"], owner_id=row["owner_id"])

    def delete_all(self, owner_id: str) -> None:
        """Delete every server of one owner, whose databases are gone already."""
        self._unit.run(_REMOVE_ALL, owner_id=owner_id)

    def _found(self, statement: sa.Select[Any], reach: Whose, server_id: str) -> Row:
        statement, bound = narrow(statement, servers.c.id, reach)
        row = self._unit.one(statement, id=server_id, **bound)
        if row is None:
            raise not_found("server", server_id)
        return row
