"""How the tables of a database differ from those of ``db/schema.py``.

Alembic compares columns, types, defaults, indexes, unique constraints and foreign keys; compared here as
well are what it leaves out: checks, collations, the precision of times, and the storage engine. What runs
migrations stands in ``db/migrate.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from morag_meta.db.migration_steps import text_collation
from morag_meta.db.schema import metadata

_SCRATCH = "morag_meta_expected"


def differences(connection: sa.Connection) -> list[str]:
    """Give a line for each difference; empty when the database is as the code says.

    Tables that the code does not know are left alone. The expected checks are made on temporary tables,
    so that the database itself writes both sides the same way; nothing is kept.
    """
    present = set(sa.inspect(connection).get_table_names())
    tables = [table for table in metadata.sorted_tables if table.name in present]
    try:
        found = _by_alembic(connection)
        for table in tables:
            found.extend(_checks(connection, table))
        match connection.dialect.name:
            case "mysql":
                found.extend(_mariadb(connection))
            case "postgresql":
                found.extend(_postgresql(connection))
            case _:
                found.extend(_sqlite(connection))
    finally:
        connection.rollback()
    return sorted(found)


def _by_alembic(connection: sa.Connection) -> list[str]:
    def ours(name: str | None, kind: str, parents: object) -> bool:
        del parents
        return kind != "table" or name in metadata.tables

    options = {"compare_type": True, "compare_server_default": True, "include_name": ours}
    context = MigrationContext.configure(connection, opts=options)
    return [_line(change) for change in compare_metadata(context, metadata)]


def _line(change: Any) -> str:
    """Say one of Alembic's changes, which it gives as what to do to the database, as what is the matter."""
    if isinstance(change, list):
        return "; ".join(_line(each) for each in change)
    action, _, kind = str(change[0]).partition("_")
    kind = {"fk": "foreign key"}.get(kind, kind)
    if action == "modify":
        _, _, table, column, _, is_now, wanted = change
        return f"{kind} differs: {table}.{column} is {is_now}, not {wanted}"
    item = change[-1]
    table = getattr(item, "table", None)
    name = item.name if table is None else f"{table.name}.{item.name}"
    return f"{kind} {'missing' if action == 'add' else 'unknown'}: {name}"


def _checks(connection: sa.Connection, table: sa.Table) -> Iterator[str]:
    expected = _expected_checks(connection, table)
    actual = _checks_of(connection, table.name)
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            yield f"check missing: {name}"
        elif name not in expected:
            yield f"check unknown: {name} on {table.name}"
        elif expected[name] != actual[name]:
            yield f"check differs: {name} is {actual[name]}, not {expected[name]}"


def _expected_checks(connection: sa.Connection, table: sa.Table) -> dict[str, str]:
    checks = [each for each in table.constraints if isinstance(each, sa.CheckConstraint)]
    if not checks:
        return {}
    columns = [sa.Column(column.name, column.type) for column in table.columns]
    copies = [sa.CheckConstraint(str(check.sqltext), name=check.name) for check in checks]
    scratch = sa.Table(_SCRATCH, sa.MetaData(), *columns, *copies, prefixes=["TEMPORARY"])
    connection.execute(sa.schema.CreateTable(scratch))
    try:
        return _checks_of(connection, _SCRATCH)
    finally:
        connection.exec_driver_sql(f"DROP TABLE {_SCRATCH}")


def _checks_of(connection: sa.Connection, table: str) -> dict[str, str]:
    found = sa.inspect(connection).get_check_constraints(table)
    return {str(check["name"]): re.sub(r"\s+", " ", check["sqltext"]).strip() for check in found}


def _mariadb(connection: sa.Connection) -> Iterator[str]:
    """Compare storage engine, collation and the precision of times (MariaDB and MySQL)."""
    wanted = text_collation(connection.dialect)
    tables = connection.exec_driver_sql(
        "SELECT table_name, engine, table_collation FROM information_schema.tables "
        "WHERE table_schema = DATABASE()"
    )
    for table, engine, collation in tables:
        if table in metadata.tables and (engine, collation) != ("InnoDB", wanted):
            yield f"table differs: {table} is {engine} with {collation}, not InnoDB with {wanted}"
    columns = connection.exec_driver_sql(
        "SELECT table_name, column_name, collation_name, datetime_precision FROM information_schema.columns "
        "WHERE table_schema = DATABASE()"
    )
    for table, column, collation, precision in columns:
        if table not in metadata.tables:
            continue
        if collation not in (None, wanted):
            yield f"collation differs: {table}.{column} is {collation}, not {wanted}"
        if precision not in (None, 6):
            yield f"time differs: {table}.{column} keeps {precision} digits of a second, not 6"


def _postgresql(connection: sa.Connection) -> Iterator[str]:
    """Find columns with a collation of their own, which may be one that ignores case, and shortened times."""
    columns = connection.exec_driver_sql(
        "SELECT table_name, column_name, collation_name, datetime_precision FROM information_schema.columns "
        "WHERE table_schema = current_schema()"
    )
    for table, column, collation, precision in columns:
        if table not in metadata.tables:
            continue
        if collation is not None:
            yield f"collation differs: {table}.{column} is {collation}, not the database's"
        if precision not in (None, 6):
            yield f"time differs: {table}.{column} keeps {precision} digits of a second, not 6"


def _sqlite(connection: sa.Connection) -> Iterator[str]:
    """Find a collation stated for a column or an index; the one unstated compares bytes."""
    made = connection.exec_driver_sql("SELECT tbl_name, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    for table, name, statement in made:
        if table in metadata.tables and re.search(r"\bCOLLATE\b", statement, re.IGNORECASE):
            yield f"collation differs: {name} states one"
