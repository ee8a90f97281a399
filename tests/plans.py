"""What a database says of how it runs a statement, read alike on every kind of database."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.reach import TOLD
from morag_meta.uow import UnitOfWork

_SINGLE = {"job_log", "CONSTANT"}
"""What has one row: a scan of it is none."""
Work = Callable[[UnitOfWork], object]


def analyze(database: Database, table: str) -> None:
    """Bring the statistics of a table up to date, by which plans are chosen."""
    quoted = database.engine.dialect.identifier_preparer.quote_identifier(table)
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"ANALYZE {'TABLE ' * (database.dialect == 'mariadb')}{quoted}")


class Plan:
    """What a database says of how it runs a statement."""

    def __init__(self, database: Database, work: Work, *, number: int = 0) -> None:
        """Explain the first statement that the work runs, or a later one."""
        engine, dialect = database.engine, database.dialect
        seen: list[tuple[str, str, Any]] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, context: Any, ___: Any) -> None:
            told = context.execution_options.get(TOLD, "")  # of its reach, where row security is on
            seen.append((told, statement, parameters))

        with database.unit_of_work() as uow:
            sa.event.listen(engine, "before_cursor_execute", note)
            try:
                work(uow)
            finally:
                sa.event.remove(engine, "before_cursor_execute", note)
        told, statement, parameters = seen[number]
        explain = {
            "sqlite": "EXPLAIN QUERY PLAN ",
            "postgresql": "EXPLAIN (FORMAT JSON) ",
            "mariadb": "EXPLAIN ",
        }[dialect]
        with database.unit_of_work() as uow:
            connection = uow._connection  # noqa: SLF001 - as the service's role, which tests are not
            rows = connection.exec_driver_sql(told + explain + statement, parameters).mappings().all()
        read = {"sqlite": self._sqlite, "postgresql": self._postgresql, "mariadb": self._mariadb}[dialect]
        self.text = json.dumps([dict(row) for row in rows], default=str)
        self.indexes: set[str] = set()
        self.scanned: set[str] = set()
        self.sorts = False
        read(rows)

    @property
    def scans(self) -> bool:
        """Whether anything is read from its beginning to its end that may be long."""
        return bool(self.scanned - _SINGLE)

    def _sqlite(self, rows: Any) -> None:
        for row in rows:
            detail = row["detail"]
            words = detail.split()
            self.sorts |= "TEMP B-TREE" in detail
            if words[0] == "SCAN" and "INDEX" not in words:
                self.scanned.add(words[1])
            if "INDEX" in words:
                self.indexes.add(words[words.index("INDEX") + 1])

    def _postgresql(self, rows: Any) -> None:
        nodes = [rows[0]["QUERY PLAN"][0]["Plan"]]
        while nodes:
            node = nodes.pop()
            nodes += node.get("Plans", [])
            if node["Node Type"] == "Seq Scan":
                self.scanned.add(node["Relation Name"])
            self.sorts |= node["Node Type"] in ("Sort", "Incremental Sort")
            if "Index Name" in node:
                self.indexes.add(node["Index Name"])

    def _mariadb(self, rows: Any) -> None:
        for row in rows:
            if row["type"] == "ALL":
                self.scanned.add(row["table"])
            self.sorts |= "filesort" in (row["Extra"] or "")
            if row["key"]:
                self.indexes.add(row["key"])
