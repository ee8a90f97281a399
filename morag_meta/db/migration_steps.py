"""The steps a revision is made of, each of which does nothing where it was done already.

MariaDB commits every DDL statement, so a migration killed half-way leaves a revision half done, and the
next start runs it again from its beginning. On PostgreSQL and SQLite a revision is undone as a whole, and
a step that finds its work done is a fault: the steps then behave as Alembic's own.

What does not live here: the revisions (``migrations/versions``) and their lock (``db/migration_lock.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import sqlalchemy as sa
from alembic import op

from morag_meta.db.migration_lock import MigrationError

MARIADB_COLLATION: Final = "utf8mb4_nopad_bin"
# MySQL 8's binary collation without padding (it has no nopad_bin). Stated by its manual; not tried here.
MYSQL_COLLATION: Final = "utf8mb4_0900_bin"

ConstraintKind = Literal["check", "foreignkey", "unique"]


def text_collation(dialect: sa.Dialect) -> str:
    """Name the collation of every text column on MariaDB or MySQL."""
    return MARIADB_COLLATION if getattr(dialect, "is_mariadb", False) else MYSQL_COLLATION


def create_table(name: str, *items: sa.schema.SchemaItem) -> None:
    """Make a table, compared case-sensitively and unpadded on MariaDB as on the others.

    Raises:
        MigrationError: on MariaDB, a table of this name is there that an earlier run cannot have made.
    """
    if _resumable() and _inspector().has_table(name):
        wanted = {item.name for item in items if isinstance(item, sa.Column)}
        if {column["name"] for column in _inspector().get_columns(name)} != wanted:
            raise MigrationError(f"there is a table {name!r} already that is not of this service")
        return
    op.create_table(name, *items, **_table_options())


def drop_table(name: str) -> None:
    """Drop a table with its rows and indexes."""
    if not (_resumable() and not _inspector().has_table(name)):
        op.drop_table(name)


def create_index(name: str, table: str, columns: Sequence[str], *, unique: bool = False) -> None:
    """Make an index. On a large PostgreSQL table this stops writers until it is built."""
    if not (_resumable() and name in _indexes(table)):
        op.create_index(name, table, list(columns), unique=unique)


def drop_index(name: str, table: str) -> None:
    """Drop an index."""
    if not (_resumable() and name not in _indexes(table)):
        op.drop_index(name, table)


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column that is nullable, or has a server default for the rows that are there."""
    if not (_resumable() and column.name in _columns(table)):
        op.add_column(table, column)


def drop_column(table: str, name: str) -> None:
    """Drop a column; its constraints and indexes first, by steps of their own."""
    if op.get_context().as_sql:  # no table to copy; SQLite drops a column in place from 3.35 on
        op.drop_column(table, name)
    elif not (_resumable() and name not in _columns(table)):
        with op.batch_alter_table(table) as batch:
            batch.drop_column(name)


def is_begun(table: str, *dropped: str) -> bool:
    """Whether an earlier run has dropped some of these columns: what reads them was done by then."""
    return _resumable() and not set(dropped) <= _columns(table)


def create_check(name: str, table: str, condition: str) -> None:
    """Add a check; the rows that are there must meet it."""
    if not (_resumable() and name in _constraints(table, "check")):
        with op.batch_alter_table(table) as batch:
            batch.create_check_constraint(op.f(name), sa.text(condition))


def create_unique(name: str, table: str, columns: Sequence[str]) -> None:
    """Add a unique constraint; the rows that are there must meet it."""
    if not (_resumable() and name in _constraints(table, "unique")):
        with op.batch_alter_table(table) as batch:
            batch.create_unique_constraint(op.f(name), list(columns))


def create_foreign_key(
    name: str, table: str, columns: Sequence[str], parent: str, parent_columns: Sequence[str]
) -> None:
    """Add a foreign key that restricts; the rows that are there must meet it."""
    if not (_resumable() and name in _constraints(table, "foreignkey")):
        with op.batch_alter_table(table) as batch:
            batch.create_foreign_key(
                op.f(name), parent, list(columns), list(parent_columns), ondelete="RESTRICT"
            )


def drop_constraint(name: str, table: str, kind: ConstraintKind) -> None:
    """Drop a check, unique constraint or foreign key."""
    if not (_resumable() and name not in _constraints(table, kind)):
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(op.f(name), type_=kind)


def insert_row(table: sa.TableClause, row: Mapping[str, Any], *, key: str) -> None:
    """Insert one row, where no row with its ``key`` is there."""
    if _resumable():
        found = sa.select(sa.literal(1)).select_from(table).where(table.c[key] == row[key])
        if op.get_bind().execute(found).first() is not None:
            return
    op.execute(sa.insert(table).values(**row))


def _resumable() -> bool:
    """Say whether a step may find itself done: where DDL commits, and not while SQL is only written."""
    run = op.get_context()
    return run.dialect.name in ("mysql", "mariadb") and not run.as_sql


def _inspector() -> sa.Inspector:
    return sa.inspect(op.get_bind())


def _columns(table: str) -> set[str | None]:
    return _names(table, lambda inspector: inspector.get_columns(table))


def _indexes(table: str) -> set[str | None]:
    return _names(table, lambda inspector: inspector.get_indexes(table))


def _constraints(table: str, kind: ConstraintKind) -> set[str | None]:
    if kind == "check":
        return _names(table, lambda inspector: inspector.get_check_constraints(table))
    if kind == "unique":
        return _names(table, lambda inspector: inspector.get_unique_constraints(table))
    return _names(table, lambda inspector: inspector.get_foreign_keys(table))


def _names(table: str, parts: Callable[[sa.Inspector], Sequence[Mapping[str, Any]]]) -> set[str | None]:
    """Name what a table has; nothing, where an earlier run dropped the table itself in a later step."""
    inspector = _inspector()
    return {part["name"] for part in parts(inspector)} if inspector.has_table(table) else set()


def _table_options() -> dict[str, Any]:
    dialect = op.get_context().dialect
    if dialect.name not in ("mysql", "mariadb"):
        return {}
    return {
        f"{dialect.name}_engine": "InnoDB",
        f"{dialect.name}_charset": "utf8mb4",
        f"{dialect.name}_collate": text_collation(dialect),
    }
