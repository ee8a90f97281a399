"""The owner in a statement: the ways in which a store binds whose rows it may touch.

Every statement over a table with an owner binds ``:owner_id``, or finds what is shared with ``:grantee_id``
by ``shared``, or is marked by ``system`` with its reason; a house test reads all of them. For a narrowed API
key a statement has one condition more, which ``narrow`` adds; for everybody else it stays as it is.
Statements themselves live in each feature's ``store.py``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from morag_meta.auth.narrowing import Narrowing, Whose, narrowing_of, owner_of
from morag_meta.auth.sharing import Grantee
from morag_meta.db.reach import EVERYONE, Path
from morag_meta.db.schema import database_grants as grants
from morag_meta.db.schema import databases, servers
from morag_meta.db.unit import Row, Unit

__all__ = [
    "EVERYONE",
    "Path",
    "after_row",
    "end_of_batch",
    "everyone",
    "find_shared",
    "narrow",
    "narrowed_to",
    "owned",
    "reach",
    "server_of",
    "shared",
    "system",
    "within",
]

_Statement = TypeVar("_Statement", bound=sa.Executable)


def reach(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Rows of the bound owner, or of anybody when EVERYONE is bound: for one row found by its id."""
    return sa.or_(table.c.owner_id == sa.bindparam("owner_id"), sa.bindparam("owner_id") == EVERYONE)


def owned(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Rows of exactly the bound owner: for lists, which need the index, and for changes."""
    return table.c.owner_id == sa.bindparam("owner_id")


def everyone() -> sa.ColumnElement[bool]:
    """All rows, and only when EVERYONE is bound: a user's id bound here finds nothing."""
    return sa.bindparam("owner_id", type_=sa.String()) == EVERYONE


def shared(table: sa.Table, database_id: sa.Column[Any]) -> sa.Select[Any]:
    """Rows in databases that are shared with the bound ``:grantee_id``, each with the ``granted_level``.

    ``database_id`` is the table's column that says in which database a row is. Beside a row's own key it
    costs one look at the primary key of the grants.
    """
    found = sa.and_(grants.c.database_id == database_id, grants.c.owner_id == table.c.owner_id)
    return (
        sa.select(table, grants.c.level.label("granted_level"))
        .join_from(table, grants, found)
        .where(grants.c.grantee_id == sa.bindparam("grantee_id"))
    )


def find_shared(
    unit: Unit, statement: sa.Select[Any], grantee: Grantee | None, **parameters: Any
) -> Row | None:
    """Run a statement made by ``shared`` for a grantee; None finds nothing, without asking.

    Raises:
        Forbidden: the row is shared, but not for what is needed (GRANT_TOO_LOW).
    """
    if grantee is None:
        return None
    statement, bound = narrowed_to(statement, grants.c.database_id, grantee.narrowing)
    row = unit.one(statement, grantee_id=grantee.user_id, **bound, **parameters)
    if row is not None:
        grantee.check(row["granted_level"])
    return row


def narrow(
    statement: sa.Select[Any], column: sa.Column[Any], whose: Whose
) -> tuple[sa.Select[Any], dict[str, Any]]:
    """Let a statement find only what lies within a reach; give it with what it binds, the owner included.

    ``column`` says of each row in which database it is, or is the id of the servers. For a reach that is not
    narrowed the statement stays as it is.
    """
    statement, bound = narrowed_to(statement, column, narrowing_of(whose))
    return statement, {"owner_id": owner_of(whose), **bound}


def narrowed_to(
    statement: sa.Select[Any], column: sa.Column[Any], narrowing: Narrowing | None
) -> tuple[sa.Select[Any], dict[str, Any]]:
    """Let a statement find only what lies within a narrowing, if any; give it with what that binds."""
    if narrowing is None:
        return statement, {}
    if column is servers.c.id:
        return _narrowed(statement, column, "servers"), {"within_servers": list(narrowing.servers)}
    return _narrowed(statement, column, narrowing.shape), narrowing.bound


def within(column: sa.ColumnElement[Any], shape: str, *, row_by_row: bool = False) -> sa.ColumnElement[bool]:
    """Rows whose database, or server, lies within a narrowing of a shape; it binds the ``bound`` of that.

    ``column`` holds the id of each row's database, or of servers, or is a subquery that finds that id. With
    ``row_by_row`` databases are never begun with: for what is read from the front of a queue.
    """
    named = column.in_(sa.bindparam("within_databases", expanding=True))
    if column is servers.c.id:
        return column.in_(sa.bindparam("within_servers", expanding=True))
    if shape == "servers" and not row_by_row:
        return _on_servers(column)
    # Beside an alternative PostgreSQL would gather all databases on these servers, whosever, by reading all.
    looked_up = server_of(column).in_(sa.bindparam("within_servers", expanding=True))
    return {"databases": named, "servers": looked_up, "both": sa.or_(named, looked_up)}[shape]


def _on_servers(database_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Rows whose database is on one of the bound servers.

    Databases and their rows have one owner, and saying so lets a database begin with the few databases on the
    servers, by the index that has them by owner and server, as well as with the rows in their order.
    """
    bound: sa.BindParameter[Any] = sa.bindparam("within_servers", expanding=True)
    if database_id is databases.c.id:
        return databases.c.server_id.in_(bound)
    place = databases.alias("place")
    found = sa.select(sa.literal(1)).where(place.c.id == database_id, place.c.server_id.in_(bound))
    table = getattr(database_id, "table", None)
    if isinstance(table, sa.Table):
        found = found.where(place.c.owner_id == table.c.owner_id).correlate(table)
    return found.exists()


def server_of(database_id: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The server of the database whose id a column holds; null where that is gone."""
    if database_id is databases.c.id:
        return databases.c.server_id
    place = databases.alias("place")
    return sa.select(place.c.server_id).where(place.c.id == database_id).scalar_subquery()


@lru_cache(maxsize=1024)
def _narrowed(statement: sa.Select[Any], column: sa.Column[Any], shape: str) -> sa.Select[Any]:
    return statement.where(within(column, shape))


def after_row(
    column: sa.Column[Any], id: sa.Column[Any], *, descending: bool
) -> list[sa.ColumnElement[bool]]:
    """Let pass the rows after the last one given, in the order of a column and then the id, both one way.

    Binds ``after_<column's name>`` and ``after_id``. The first condition follows from the second, and is the
    one by which a database enters its index where the page begins.
    """
    value: sa.BindParameter[Any] = sa.bindparam(f"after_{column.name}", type_=column.type)
    last: sa.BindParameter[Any] = sa.bindparam("after_id", type_=id.type)
    if descending:
        return [column <= value, sa.or_(column < value, id < last)]
    return [column >= value, sa.or_(column > value, id > last)]


def end_of_batch(time: sa.Column[Any], why: str) -> sa.Select[Any]:
    """Find the ``last`` time among the ``:limit`` oldest rows ``:before`` a time; null where there are none.

    What is swept goes in such batches, so that no transaction holds many rows. Deleting up to a time is one
    walk along its index, whereas MariaDB takes no limit in a subselect and scans the table for one in it.
    """
    oldest = sa.select(time).where(time < sa.bindparam("before", type_=time.type)).order_by(time)
    batch = oldest.limit(sa.bindparam("limit", type_=sa.Integer)).subquery("batch")
    return system(sa.select(sa.func.max(batch.c[time.name]).label("last")), why, Path.SWEEPER)


def system(statement: _Statement, why: str, path: Path | None = None) -> _Statement:
    """Mark a statement that rightly has no owner, and say why.

    ``path`` names the way by which row security lets it reach rows (``db/policies.py``); without one it
    reaches none there.
    """
    return statement.execution_options(system_reason=why, system_path=path)


@compiles(sa.Update)
def _write_only_what_values_name(statement: sa.Update, compiler: SQLCompiler, **kw: Any) -> str:
    """Let a bound ``owner_id`` choose the rows of an update, which names what it writes with ``values()``.

    SQLAlchemy would take every parameter that has a column's name for a value to write.
    """
    compiler.column_keys = None
    return compiler.visit_update(statement, **kw)
