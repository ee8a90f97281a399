"""The owner in a statement: the ways in which a store binds whose rows it may touch.

Every statement over a table with an owner binds ``:owner_id``, or finds what is shared with ``:grantee_id``
by ``shared``, or is marked by ``system`` with its reason; a house test reads all of them. Statements
themselves live in each feature's ``store.py``.
"""

from __future__ import annotations

from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from morag_meta.auth.sharing import Grantee
from morag_meta.db.reach import EVERYONE, Path
from morag_meta.db.schema import database_grants as grants
from morag_meta.db.unit import Row, Unit

__all__ = [
    "EVERYONE",
    "Path",
    "after_row",
    "end_of_batch",
    "everyone",
    "find_shared",
    "owned",
    "reach",
    "shared",
    "system",
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
    row = None if grantee is None else unit.one(statement, grantee_id=grantee.user_id, **parameters)
    if grantee is not None and row is not None:
        grantee.check(row["granted_level"])
    return row


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
