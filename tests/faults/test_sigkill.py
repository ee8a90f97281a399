"""A server process that is killed while it writes: what was acknowledged is kept, nothing is half done."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from morag_meta.db.database import Database
from morag_meta.db.schema import audit_events, databases, documents, job_events, jobs, request_records
from moragmeta.v1 import databases_pb2, documents_pb2, jobs_pb2, servers_pb2
from tests.processes import ServerProcess, running
from tests.service import Channel

KILLS = 2
WRITERS = 4


class Writer:
    """A client that uploads and works without pause, and notes what was acknowledged."""

    def __init__(self, target: str, key: str, database_id: str) -> None:
        self._channel = Channel(target, (("x-api-key", key),))
        self._database_id = database_id
        self.documents: dict[str, str] = {}
        """The ids of acknowledged documents by their request ids."""
        self.open: dict[str, documents_pb2.CreateDocumentRequest] = {}
        """The requests that were sent and never answered, by their ids."""
        self.reports: dict[str, tuple[int, bool]] = {}
        """The last acknowledged report of each job, and whether the job was completed by it."""

    def work(self, stop: threading.Event) -> None:
        """Upload a document, ingest it, and begin again; what was not answered is asked again first."""
        while not stop.is_set():
            try:
                pending = list(self.open.values())
                self._ingest(self.settle(pending[0]) if pending else self._upload())
            except grpc.RpcError:
                time.sleep(0.05)

    def _upload(self) -> str:
        request_id = uuid.uuid4().hex
        document = documents_pb2.Document(name=request_id, type="txt", database_id=self._database_id)
        request = documents_pb2.CreateDocumentRequest(document=document, request_id=request_id)
        self.open[request_id] = request
        return self.settle(request)

    def settle(self, request: documents_pb2.CreateDocumentRequest) -> str:
        """Send a request until nothing about it is open any more."""
        made = self._channel.documents.CreateDocument(request, timeout=5).document
        del self.open[request.request_id]
        self.documents[request.request_id] = made.id
        return str(made.id)

    def settle_all(self) -> None:
        """Settle what is open, although the channel may not have noticed yet that it is served again."""
        end = time.monotonic() + 60
        while self.open:
            try:
                self.settle(next(iter(self.open.values())))
            except grpc.RpcError:
                assert time.monotonic() < end
                time.sleep(0.1)

    def _ingest(self, document_id: str) -> None:
        stub = self._channel.jobs
        job = jobs_pb2.Job(kind="INGESTION", document_id=document_id)
        job_id = stub.CreateJob(jobs_pb2.CreateJobRequest(job=job), timeout=5).id
        stub.StartJob(jobs_pb2.StartJobRequest(id=job_id), timeout=5)
        for number in range(1, 4):
            report = jobs_pb2.UpdateJobProgressRequest(
                id=job_id, attempt=1, report_number=number, percentage=number * 20
            )
            stub.UpdateJobProgress(report, timeout=5)
            self.reports[job_id] = (number, False)
        result = jobs_pb2.JobResult(chunks=number)
        stub.CompleteJob(
            jobs_pb2.CompleteJobRequest(id=job_id, attempt=1, report_number=4, result=result), timeout=5
        )
        self.reports[job_id] = (4, True)

    def close(self) -> None:
        """Disconnect."""
        self._channel.close()


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[tuple[ServerProcess, str]]:
    """Give a running server, and the key of its user."""
    with running(database_url, tmp_path / "log") as started:
        yield started


def _database_id(target: str, key: str) -> str:
    channel = Channel(target, (("x-api-key", key),))
    kind = servers_pb2.SERVER_KIND_QDRANT
    server = servers_pb2.Server(name="main", kind=kind, host="h", port=1)
    made = channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server))
    database = databases_pb2.Database(name="main", server_id=made.id)
    request = databases_pb2.CreateDatabaseRequest(database=database)
    id = channel.databases.CreateDatabase(request).id
    channel.close()
    return str(id)


def _wait_for_work(writers: list[Writer]) -> None:
    """Wait until two more jobs were reported on."""
    before, end = sum(len(writer.reports) for writer in writers), time.monotonic() + 60
    while sum(len(writer.reports) for writer in writers) < before + 2:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_server_loses_nothing_and_leaves_nothing_half_done(
    server: tuple[ServerProcess, str], database_url: str
) -> None:
    """Through SIGKILLs at any moment every acknowledged change is kept once, with its events and counts."""
    process, key = server
    database_id = _database_id(process.target, key)
    writers = [Writer(process.target, key, database_id) for _ in range(WRITERS)]
    stop = threading.Event()
    threads = [threading.Thread(target=writer.work, args=(stop,)) for writer in writers]
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        _wait_for_work(writers)
        time.sleep(random.uniform(0, 0.5))  # noqa: S311 - any moment
        process.kill()
        process.start()
    _wait_for_work(writers)
    stop.set()
    for thread in threads:
        thread.join(30)
    process.kill()
    process.start()
    for writer in writers:
        writer.settle_all()
        writer.close()
    process.kill()
    database = Database.open(database_url)
    _check_documents(database, writers, database_id)
    _check_jobs(database, writers)
    _check_audit(database)
    database.close()


def _all(database: Database, *statement: Any) -> list[Any]:
    with database.unit_of_work() as uow:
        return uow.all(sa.select(*statement))


def _check_documents(database: Database, writers: list[Writer], database_id: str) -> None:
    """Every upload is there once, under the id that was told, and the database counts them all."""
    found = {row["name"]: row["id"] for row in _all(database, documents.c.name, documents.c.id)}
    told = {name: id for writer in writers for name, id in writer.documents.items()}
    assert found == told
    (counted,) = _all(database, databases.c.id, databases.c.document_count)
    assert (counted["id"], counted["document_count"]) == (database_id, len(told))
    claims = _all(database, request_records.c.request_id, request_records.c.receipt)
    assert {row["request_id"]: row["receipt"]["id"] for row in claims} == told


def _check_audit(database: Database) -> None:
    """Every change has exactly one row in the audit, and no row is of a change that was not kept."""
    rows = _all(database, audit_events.c.event, audit_events.c.target_id, audit_events.c.outcome)
    done = Counter((row["event"], row["target_id"]) for row in rows if row["outcome"] == "OK")
    uploaded = {row["id"]: 1 for row in _all(database, documents.c.id)}
    assert {id: count for (event, id), count in done.items() if event == "document.create"} == uploaded
    for event, states in (("job.start", ("PROCESSING", "FINISHED")), ("job.complete", ("FINISHED",))):
        there = {row["id"]: 1 for row in _all(database, jobs.c.id, jobs.c.state) if row["state"] in states}
        assert {id: count for (name, id), count in done.items() if name == event} == there


def _check_jobs(database: Database, writers: list[Writer]) -> None:
    """Every acknowledged report is kept, each job has its events without a gap, its document its state."""
    rows = {row["id"]: row for row in _all(database, jobs)}
    for writer in writers:
        for job_id, (number, completed) in writer.reports.items():
            assert rows[job_id]["report_number"] >= number
            assert not completed or rows[job_id]["state"] == "FINISHED"
    events: dict[str, list[Any]] = {}
    for event in sorted(_all(database, job_events), key=lambda event: event["number"]):
        events.setdefault(event["job_id"], []).append(event)
    assert events.keys() == rows.keys()
    for job_id, row in rows.items():
        assert [event["number"] for event in events[job_id]] == list(range(1, row["event_number"] + 1))
        last = events[job_id][-1]
        assert (last["state"], last["percentage"]) == (row["state"], row["percentage"])
    _check_states(database, rows)


def _check_states(database: Database, rows: dict[str, Any]) -> None:
    by_document = {row["document_id"]: row["state"] for row in rows.values()}
    assert Counter(row["document_id"] for row in rows.values()).most_common(1)[0][1] == 1
    expected = {"PROCESSING": "INGESTING", "FINISHED": "INGESTED"}
    for document in _all(database, documents.c.id, documents.c.state):
        job_state = by_document.get(document["id"], "")
        assert document["state"] == expected.get(job_state, "PENDING")
