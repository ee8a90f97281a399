"""Looking for secrets in a database: in the bytes of its files, or in every column of every row."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.url import normalize
from tests.leaks.collected import SECRETS, check

_MAY_HOLD_LEASES: Final = {("jobs", "lease_token")}


def check_files(folder: Path) -> None:
    """Look into SQLite's files in a folder: the database, its journal and its log of writes.

    The tokens of leases are in it, in their column; they are searched for in the logs, the errors and, as
    the other kinds have it as well, in the audit of these.
    """
    if len(SECRETS):
        for file in sorted(folder.glob("*.db*")):
            with contextlib.suppress(FileNotFoundError):  # whoever closed last took the log of writes along
                check(f"the file {file.name} of SQLite", file.read_bytes(), leases=False)


def check_rows(url: str) -> None:
    """Look into every column of every table of a database on a server."""
    if not len(SECRETS):
        return
    engine = sa.create_engine(normalize(url), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            metadata = sa.MetaData()
            for name in sa.inspect(connection).get_table_names():
                table = sa.Table(name, metadata, autoload_with=connection, resolve_fks=False)
                _check_table(connection, table)
    finally:
        engine.dispose()


def _check_table(connection: sa.Connection, table: sa.Table) -> None:
    name = connection.dialect.identifier_preparer.format_table(table)
    rows = connection.exec_driver_sql(f"SELECT * FROM {name}").all()
    for number, column in enumerate(table.columns):
        text = b"\n".join(_bytes(row[number]) for row in rows if row[number] is not None)
        check(
            f"the column {table.name}.{column.name}",
            text,
            leases=(table.name, column.name) not in _MAY_HOLD_LEASES,
        )


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    return str(value).encode(errors="surrogatepass")
