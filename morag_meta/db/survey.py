"""What a database holds, for people: the server's version, the tables, and their numbers of rows.

It only reads. Whether the schema is the right one is said by ``db/migrate.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from morag_meta.db.migration_lock import reading
from morag_meta.db.schema import metadata


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at a database; ``rows`` maps each table of this service that is there to its rows."""

    version: str
    schema: str
    rows: dict[str, int]
    missing: list[str]


def survey(url: str) -> Survey:
    """Look at a database.

    Raises:
        UrlError: the URL cannot be used.
        MigrationError: it cannot be reached, or the SQLite file is not there.
    """
    with reading(url) as connection:
        kind = connection.dialect.name
        expression = "sqlite_version()" if kind == "sqlite" else "version()"
        version = connection.exec_driver_sql(f"SELECT {expression}").scalar()
        inspector = sa.inspect(connection)
        present = set(inspector.get_table_names())
        tables = [table for table in metadata.sorted_tables if table.name in present]
        rows = {
            table.name: int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
            for table in tables
        }
        missing = [table.name for table in metadata.sorted_tables if table.name not in present]
        return Survey(f"{kind} {version}", inspector.default_schema_name or "", rows, missing)
