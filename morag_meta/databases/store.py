"""Every statement on the table ``databases``, and the upkeep of ``document_count``.

Whoever changes how many documents of a database are not DELETED calls ``add_to_count`` in the same
transaction. Rows are locked in one order everywhere, so that no two transactions wait for each other:
user (and settings), server, database, document, job, grant; several of one table in the order of ids.
So lock the database before its documents are touched: the insert of a document shares a lock on its
database, which the count then cannot take over from another insert.

What does not live here: counting and detaching documents (``documents/store.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from morag_meta.auth.narrowing import Narrowing, Whose, owner_of
from morag_meta.auth.sharing import Grantee
from morag_meta.db.counted import Resource, add, counted
from morag_meta.db.schema import database_grants as grants
from morag_meta.db.schema import databases
from morag_meta.db.statements import (
    EVERYONE,
    after_row,
    everyone,
    find_shared,
    narrow,
    narrowed_to,
    owned,
    reach,
    shared,
)
from morag_meta.db.text import contains
from morag_meta.db.unit import Row, Unit
from morag_meta.errors import not_found

_ID = databases.c.id == sa.bindparam("id")
_ON_SERVER = databases.c.server_id == sa.bindparam("server_id")

_GET = sa.select(databases).where(_ID, reach(databases))
_LOCK = _GET.with_for_update()
_SHARED = shared(databases, databases.c.id).where(_ID)
_LOCK_SHARED = _SHARED.with_for_update()
_LOCK_ON_SERVER = (
    sa.select(databases).where(_ON_SERVER, owned(databases)).order_by(databases.c.id).with_for_update()
)
_SERVERS_OF = sa.select(databases.c.id, databases.c.server_id).where(
    everyone(), databases.c.id.in_(sa.bindparam("database_ids", expanding=True))
)
_COUNT_ON_SERVER = sa.select(sa.func.count().label("count")).where(_ON_SERVER, owned(databases))
_ADD = counted(sa.insert(databases))
_CHANGE = (
    sa.update(databases)
    .where(_ID, owned(databases))
    .values(
        name=sa.bindparam("new_name"),
        description=sa.bindparam("new_description"),
        revision=sa.bindparam("new_revision"),
        update_time=sa.bindparam("new_update_time"),
    )
)
_ADD_TO_COUNT = (
    sa.update(databases)
    .where(_ID, owned(databases))
    .values(
        document_count=databases.c.document_count + sa.bindparam("delta", type_=sa.BigInteger),
        content_update_time=sa.bindparam("now"),
    )
)
_SET_COUNT = (
    sa.update(databases)
    .where(_ID, owned(databases))
    .values(document_count=sa.bindparam("count"), content_update_time=sa.bindparam("now"))
)
_REMOVE = sa.delete(databases).where(_ID, owned(databases))
_REMOVE_ALL = sa.delete(databases).where(owned(databases))


@lru_cache
def _page(of_everyone: bool, after: bool, on_server: bool, name: bool) -> sa.Select[Any]:  # noqa: FBT001 - a shape
    statement = sa.select(databases).where(everyone() if of_everyone else owned(databases))
    if after:
        statement = statement.where(*after_row(databases.c.create_time, databases.c.id, descending=True))
    if on_server:
        statement = statement.where(_ON_SERVER)
    if name:
        statement = statement.where(contains(databases.c.name, sa.bindparam("name", type_=sa.String())))
    newest_first = (databases.c.create_time.desc(), databases.c.id.desc())
    return statement.order_by(*newest_first).limit(sa.bindparam("limit", type_=sa.Integer))


@lru_cache
def _page_shared(after: bool, on_server: bool, name: bool) -> sa.Select[Any]:  # noqa: FBT001 - a shape
    statement = shared(databases, databases.c.id).add_columns(grants.c.create_time.label("share_time"))
    time, id_ = grants.c.create_time, grants.c.database_id
    if after:
        statement = statement.where(*after_row(time, id_, descending=True))
    if on_server:
        statement = statement.where(_ON_SERVER)
    if name:
        statement = statement.where(contains(databases.c.name, sa.bindparam("name", type_=sa.String())))
    return statement.order_by(time.desc(), id_.desc()).limit(sa.bindparam("limit", type_=sa.Integer))


class DatabaseStore:
    """The databases of all owners, each reached through its owner."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def get(self, reach: Whose, database_id: str, grantee: Grantee | None = None) -> Row:
        """Give one database; with its ``granted_level`` where it is beyond reach and shared with a grantee.

        Raises:
            NotFound: there is none within reach, and none shared.
            Forbidden: it is shared, but not for what is needed (GRANT_TOO_LOW).
        """
        statement, bound = narrow(_GET, databases.c.id, reach)
        row = self._unit.one(statement, id=database_id, **bound)
        return row or self._found(find_shared(self._unit, _SHARED, grantee, id=database_id), database_id)

    def lock(self, reach: Whose, database_id: str, grantee: Grantee | None = None) -> Row:
        """Give one database as ``get`` does, locked until the transaction ends, as is the grant.

        Raises:
            NotFound, Forbidden: as ``get``.
        """
        statement, bound = narrow(_LOCK, databases.c.id, reach)
        row = self._unit.one(statement, id=database_id, **bound)
        return row or self._found(find_shared(self._unit, _LOCK_SHARED, grantee, id=database_id), database_id)

    def lock_on_server(self, owner_id: str, server_id: str) -> list[Row]:
        """Give every database on one server, locked until the transaction ends."""
        return self._unit.all(_LOCK_ON_SERVER, owner_id=owner_id, server_id=server_id)

    def servers_of(self, database_ids: Collection[str]) -> dict[str, str]:
        """Give the server of each of the databases that exists, whosever they are."""
        rows = self._unit.all(_SERVERS_OF, owner_id=EVERYONE, database_ids=list(database_ids))
        return {row["id"]: row["server_id"] for row in rows}

    def count_on_server(self, owner_id: str, server_id: str) -> int:
        """Count the databases on one server."""
        row = self._unit.one(_COUNT_ON_SERVER, owner_id=owner_id, server_id=server_id)
        return int(row["count"]) if row else 0

    def page(
        self,
        reach: Whose,
        after: Mapping[str, Any] | None,
        limit: int,
        *,
        server_id: str = "",
        name_contains: str = "",
    ) -> list[Row]:
        """List at most ``limit`` databases of an owner or of EVERYONE, newest first, after a row's keys.

        A database matches when it is on the server and its name contains ``name_contains``, letter case
        counting; an empty filter matches all.
        """
        after = after or {}
        page = _page(owner_of(reach) == EVERYONE, bool(after), bool(server_id), bool(name_contains))
        statement, bound = narrow(page, databases.c.id, reach)
        given = {
            key: value for key, value in {"server_id": server_id, "name": name_contains}.items() if value
        }
        position = {f"after_{key}": value for key, value in after.items()}
        return self._unit.all(statement, limit=limit, **bound, **position, **given)

    def page_shared(
        self,
        grantee_id: str,
        after: Mapping[str, Any] | None,
        limit: int,
        *,
        server_id: str = "",
        name_contains: str = "",
        narrowing: Narrowing | None = None,
    ) -> list[Row]:
        """List at most ``limit`` databases that are shared with a user, the last shared first.

        ``after`` holds the ``share_time`` and ``id`` of a row; the filters are those of ``page``.
        """
        given = {
            key: value for key, value in {"server_id": server_id, "name": name_contains}.items() if value
        }
        if after:
            given |= {"after_create_time": after["share_time"], "after_id": after["id"]}
        page = _page_shared(bool(after), bool(server_id), bool(name_contains))
        statement, bound = narrowed_to(page, databases.c.id, narrowing)
        return self._unit.all(statement, grantee_id=grantee_id, limit=limit, **bound, **given)

    def add(
        self, database_id: str, owner_id: str, *, server_id: str, name: str, description: str = ""
    ) -> Row:
        """Add an empty database on a server that is held (``ServerStore.hold``).

        Raises:
            AlreadyExists: the owner has a database of that name.
        """
        now = self._unit.now
        row = {
            "id": database_id,
            "owner_id": owner_id,
            "server_id": server_id,
            "name": name,
            "description": description,
            "document_count": 0,
            "content_update_time": now,
            "revision": 1,
            "create_time": now,
            "update_time": now,
        }
        add(self._unit, _ADD, row, Resource.DATABASES)
        return row

    def change(self, row: Row, **values: str) -> Row:
        """Write ``name`` or ``description`` of a locked row, and give it as it is then.

        Raises:
            AlreadyExists: the owner has another database of the new name.
        """
        new = {**row, **values, "revision": row["revision"] + 1, "update_time": self._unit.now}
        written = {f"new_{name}": new[name] for name in ("name", "description", "revision", "update_time")}
        self._unit.run(_CHANGE, id=row["id"], owner_id=row["owner_id"], **written)
        return new

    def add_to_count(self, owner_id: str, database_id: str, delta: int) -> None:
        """Note that the database has ``delta`` more documents (fewer when negative) that are not DELETED.

        Leaves the revision: a database's etag does not change with its documents.

        Raises:
            NotFound: that owner has no such database.
        """
        parameters = {"id": database_id, "owner_id": owner_id, "delta": delta, "now": self._unit.now}
        if not self._unit.run(_ADD_TO_COUNT, **parameters):
            raise not_found("database", database_id)

    def set_count(self, row: Row, count: int) -> Row:
        """Set the count of a locked row, and give it as it is then; leaves the revision."""
        now = self._unit.now
        self._unit.run(_SET_COUNT, id=row["id"], owner_id=row["owner_id"], count=count, now=now)
        return {**row, "document_count": count, "content_update_time": now}

    def remove(self, row: Row) -> None:
        """Delete a locked row that nothing refers to any more."""
        self._unit.run(_REMOVE, id=row["id"], owner_id=row["owner_id"])

    def delete_all(self, owner_id: str) -> None:
        """Delete every database of one owner, whose documents and settings refer to none any more."""
        self._unit.run(_REMOVE_ALL, owner_id=owner_id)

    def _found(self, row: Row | None, database_id: str) -> Row:
        if row is None:
            raise not_found("database", database_id)
        return row
