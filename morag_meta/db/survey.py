"""What a database holds: the server's version, the tables and their rows, and whether secrets made them.

It only reads. Whether the schema is the right one is said by ``db/migrate.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.migration_lock import reading
from morag_meta.db.schema import api_keys, metadata, servers
from morag_meta.db.statements import system

_KEYS: Final = system(sa.select(api_keys.c.id).limit(1), "any key shows that the secret was used")
_CREDENTIALS: Final = system(
    sa.select(servers.c.id)
    .where(sa.or_(servers.c.password_sealed.is_not(None), servers.c.api_key_sealed.is_not(None)))
    .limit(1),
    "any sealed credential shows that the key ring was used",
)

_WALLED: Final = sa.text("SELECT row_security_active(to_regclass('users')::oid)")


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at a database; ``rows`` maps each table of this service that is there to its rows.

    ``is_walled`` says that row security keeps rows from the role that looked, so that ``rows`` are not all.
    """

    version: str
    schema: str
    rows: dict[str, int]
    missing: list[str]
    is_walled: bool


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
        is_walled = kind == "postgresql" and bool(connection.scalar(_WALLED))
        return Survey(f"{kind} {version}", inspector.default_schema_name or "", rows, missing, is_walled)


def holds_keys(url: str) -> bool:
    """Say whether there is any API key, revoked or not; raises as ``survey``."""
    return _finds(url, api_keys, _KEYS)


def holds_credentials(url: str) -> bool:
    """Say whether there is any sealed credential; raises as ``survey``."""
    return _finds(url, servers, _CREDENTIALS)


def _finds(url: str, table: sa.Table, rows: sa.Select[Any]) -> bool:
    with reading(url) as connection:
        return sa.inspect(connection).has_table(table.name) and connection.execute(rows).first() is not None
