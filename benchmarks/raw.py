"""The same statements on the raw driver: what a servicer would cost that wrote to psycopg2 or sqlite3 itself.

It runs in lanes like the service's own, reads on SQLite at once as the service does, and gives the same
messages. It leaves out what the service must not: domain errors, repetition after a collision, and who is
told of a change.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from morag_meta.db.engine import DatabaseOptions, make_engine
from morag_meta.db.lanes import Lane, Worker
from morag_meta.db.schema import documents, job_events, jobs
from morag_meta.documents.convert import document_to_proto
from morag_meta.jobs.convert import job_to_proto
from moragmeta.v1 import documents_pb2, jobs_pb2

Row = Mapping[str, Any]

_DOCUMENT: Final = [column.name for column in documents.columns]
_JOB: Final = [column.name for column in jobs.columns]
_EVENT: Final = [column.name for column in job_events.columns]
_TIMES: Final = frozenset(name for name in (*_DOCUMENT, *_JOB) if name.endswith("_time"))
_JSON: Final = ("metadata", "parameters", "result")

_GET: Final = (
    f"SELECT {', '.join(_DOCUMENT)}"  # noqa: S608 - the schema's own names
    " FROM documents WHERE id = :id AND (owner_id = :owner OR :owner = '-')"
)
_LIST: Final = (
    f"SELECT {', '.join(_DOCUMENT)} FROM documents"  # noqa: S608
    " WHERE owner_id = :owner AND state <> 'DELETED' ORDER BY create_time DESC, id DESC LIMIT :limit"
)
_LOCK: Final = (
    f"SELECT {', '.join(_JOB)} FROM jobs"  # noqa: S608
    " WHERE id = :id AND (owner_id = :owner OR :owner = '-')"
)
_CHANGE: Final = (
    "UPDATE jobs SET event_number = :event_number, percentage = :percentage, phase = :phase,"
    " report_number = :report_number, revision = :revision, summary = :summary, update_time = :update_time"
    " WHERE id = :id AND owner_id = :owner_id AND revision = :revision - 1"
)
_WRITTEN: Final = (
    *("id", "owner_id", "event_number", "percentage"),
    *("phase", "report_number", "revision", "summary"),
)
_EVENT_INSERT: Final = (
    f"INSERT INTO job_events ({', '.join(_EVENT)})"  # noqa: S608
    f" VALUES ({', '.join(':' + name for name in _EVENT)})"
)
_KEY: Final = (
    "SELECT epoch, k.id, k.expire_time, k.scopes, k.revoke_time, u.id, u.role, u.active FROM auth_epoch"
    " LEFT JOIN api_keys k ON k.key_hash = :hash LEFT JOIN users u ON u.id = k.owner_id"
    " WHERE auth_epoch.id = 1"
)


class RawDriver:
    """The rivals' data path of one process."""

    def __init__(self, options: DatabaseOptions) -> None:
        """Prepare lanes of the same size as the service's."""
        engine = make_engine(options)
        self._sqlite = options.dialect == "sqlite"
        self._statements: dict[str, str] = {}
        self._readers = Lane("raw", engine, options, threads=2 if self._sqlite else options.connections)
        self._writers = Lane("raw-writer", engine, options, threads=1) if self._sqlite else self._readers
        self._inline = Worker(engine, options)

    async def get_document(self, reach: str, id: str) -> documents_pb2.Document:
        """Read one document by its key."""

        def read(worker: Worker) -> documents_pb2.Document:
            cursor = self._run(worker, _GET, {"id": id, "owner": reach})
            return document_to_proto(self._row(_DOCUMENT, cursor.fetchone()))

        return await self._read(read, point=True)  # type: ignore[no-any-return]

    async def list_documents(self, owner: str, size: int) -> documents_pb2.ListDocumentsResponse:
        """Read the first page of an owner's documents."""

        def read(worker: Worker) -> documents_pb2.ListDocumentsResponse:
            rows = self._run(worker, _LIST, {"owner": owner, "limit": size + 1}).fetchall()
            found = [document_to_proto(self._row(_DOCUMENT, row)) for row in rows[:size]]
            return documents_pb2.ListDocumentsResponse(documents=found, next_page_token="x" * 200)

        return await self._read(read)  # type: ignore[no-any-return]

    async def update_progress(
        self, reach: str, request: jobs_pb2.UpdateJobProgressRequest
    ) -> jobs_pb2.UpdateJobProgressResponse:
        """Change a job and append its event, in one transaction."""

        def write(worker: Worker) -> jobs_pb2.UpdateJobProgressResponse:
            row = self._change(worker, reach, request)
            return jobs_pb2.UpdateJobProgressResponse(
                job=job_to_proto(row), outcome=jobs_pb2.REPORT_OUTCOME_APPLIED
            )

        return await self._writers.submit(write, None)

    async def check_key(self, digest: str) -> bool:
        """Look a key up by its hash."""

        def read(worker: Worker) -> bool:
            row = self._run(worker, _KEY, {"hash": digest}).fetchone()
            return row[1] is not None and row[4] is None and bool(row[7])

        return await self._read(read, point=True)  # type: ignore[no-any-return]

    async def _read(self, read: Callable[[Worker], Any], *, point: bool = False) -> Any:
        if point and self._sqlite:
            return read(self._inline)
        return await self._readers.submit(read, None)

    def _run(self, worker: Worker, statement: str, parameters: Row) -> Any:
        driver: Any = worker.connection().connection.driver_connection
        cursor = driver.cursor()
        cursor.execute(self._text(statement), parameters)
        return cursor

    def _text(self, statement: str) -> str:
        """Give a statement in the driver's own way of naming parameters."""
        if self._sqlite:
            return statement
        text = self._statements.get(statement)
        if text is None:
            text = self._statements[statement] = re.sub(r":(\w+)", r"%(\1)s", statement)
        return text

    def _row(self, columns: list[str], values: tuple[Any, ...]) -> dict[str, Any]:
        row = dict(zip(columns, values, strict=True))
        for name in _JSON:
            if row.get(name) is not None:
                row[name] = json.loads(row[name])
        if self._sqlite:
            for name in _TIMES:
                if row.get(name) is not None:
                    row[name] = dt.datetime.fromisoformat(row[name]).replace(tzinfo=dt.UTC)
        return row

    def _time(self, time: dt.datetime) -> Any:
        return time.replace(tzinfo=None).isoformat(" ", "microseconds") if self._sqlite else time

    def _change(
        self, worker: Worker, reach: str, request: jobs_pb2.UpdateJobProgressRequest
    ) -> dict[str, Any]:
        self._run(worker, "BEGIN IMMEDIATE" if self._sqlite else "BEGIN", {})
        lock = _LOCK if self._sqlite else f"{_LOCK} FOR UPDATE"
        row = self._row(_JOB, self._run(worker, lock, {"id": request.id, "owner": reach}).fetchone())
        if row["state"] != "PROCESSING" or request.report_number <= row["report_number"]:
            self._run(worker, "ROLLBACK", {})
            raise ValueError("the report cannot be applied")
        now = dt.datetime.now(dt.UTC)
        new = {
            **row,
            "report_number": request.report_number,
            "percentage": max(request.percentage, row["percentage"]),
            "phase": request.phase or row["phase"],
            "summary": request.summary or row["summary"],
            "event_number": row["event_number"] + 1,
            "revision": row["revision"] + 1,
            "update_time": now,
        }
        event = {
            **{name: new.get(name) for name in _EVENT},
            "job_id": row["id"],
            "number": new["event_number"],
            "previous_state": row["state"],
            "previous_percentage": row["percentage"],
            "create_time": self._time(now),
        }
        self._run(worker, _CHANGE, {**{name: new[name] for name in _WRITTEN}, "update_time": self._time(now)})
        self._run(worker, _EVENT_INSERT, event)
        self._run(worker, "COMMIT", {})
        return new
