"""A user with documents, and the steps of a worker, in the shortest form."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from morag_meta.db import migrate
from morag_meta.db.database import Database
from moragmeta.v1 import documents_pb2, jobs_pb2
from tests.backends.databases import Backend
from tests.jobs.queued import Queue
from tests.jobs.written import Shelf
from tests.processes import ServerProcess, running
from tests.service import Service, User


class Work:
    """One user's documents and jobs."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.jobs = user.channel.jobs
        self.documents = user.channel.documents
        self._names = itertools.count(1)

    def add_document(self) -> str:
        """Register a document and give its id."""
        document = documents_pb2.Document(name=f"{next(self._names)}.txt", type="txt")
        created = self.documents.CreateDocument(documents_pb2.CreateDocumentRequest(document=document))
        return str(created.document.id)

    def document(self, document_id: str) -> documents_pb2.Document:
        """Read a document."""
        found: documents_pb2.Document = self.documents.GetDocument(
            documents_pb2.GetDocumentRequest(id=document_id)
        )
        return found

    def add_job(self, document_id: str = "", kind: str = "INGESTION", **fields: Any) -> jobs_pb2.Job:
        """Create a job; of a new document unless one is named or the kind is another one."""
        if kind == "INGESTION" and not document_id:
            document_id = self.add_document()
        job = jobs_pb2.Job(kind=kind, document_id=document_id, **fields)
        created: jobs_pb2.Job = self.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=job))
        return created

    def start(self, job_id: str, **fields: Any) -> jobs_pb2.Job:
        """Start a job."""
        started: jobs_pb2.Job = self.jobs.StartJob(jobs_pb2.StartJobRequest(id=job_id, **fields))
        return started

    def progress(
        self, job_id: str, number: int, percentage: int = 0, **fields: Any
    ) -> jobs_pb2.UpdateJobProgressResponse:
        """Report progress."""
        request = jobs_pb2.UpdateJobProgressRequest(
            id=job_id, report_number=number, percentage=percentage, **{"attempt": 1} | fields
        )
        response: jobs_pb2.UpdateJobProgressResponse = self.jobs.UpdateJobProgress(request)
        return response

    def complete(self, job_id: str, number: int, **fields: Any) -> jobs_pb2.CompleteJobResponse:
        """Report success."""
        result = {name: fields.pop(name) for name in ("chunks", "quality", "metadata") if name in fields}
        request = jobs_pb2.CompleteJobRequest(
            id=job_id, report_number=number, result=jobs_pb2.JobResult(**result), **{"attempt": 1} | fields
        )
        response: jobs_pb2.CompleteJobResponse = self.jobs.CompleteJob(request)
        return response

    def fail(
        self, job_id: str, number: int, error: str = "broken", **fields: Any
    ) -> jobs_pb2.FailJobResponse:
        """Report failure."""
        request = jobs_pb2.FailJobRequest(
            id=job_id, report_number=number, error=error, **{"attempt": 1} | fields
        )
        response: jobs_pb2.FailJobResponse = self.jobs.FailJob(request)
        return response

    def cancel(self, job_id: str, **fields: Any) -> jobs_pb2.Job:
        """Call a job off."""
        cancelled: jobs_pb2.Job = self.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job_id, **fields))
        return cancelled

    def job(self, job_id: str) -> jobs_pb2.Job:
        """Read a job."""
        found: jobs_pb2.Job = self.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id))
        return found

    def events(self, job_id: str, after: int = 0) -> list[jobs_pb2.JobEvent]:
        """Watch a job that has ended, and give the events after a number."""
        frames = self.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id, after_sequence=after))
        return [frame.event for frame in frames if frame.HasField("event")]


@pytest.fixture
def work(service: Service) -> Work:
    """Give a fresh user's work."""
    return Work(service.new_user())


@pytest.fixture
def shelf(database_url: str) -> Iterator[Shelf]:
    """Give an empty database of the test's own."""
    migrate.upgrade(database_url)
    database = Database.open(database_url)
    yield Shelf(database)
    database.close()


@pytest.fixture(scope="module")
def queue_of_module(backend: Backend) -> Iterator[Queue]:
    """Give a database with a few users."""
    url = backend.new_url()
    migrate.upgrade(url)
    database = Database.open(url)
    yield Queue(database)
    database.close()
    backend.drop(url)


@pytest.fixture
def queue(queue_of_module: Queue) -> Queue:
    """Give an empty queue."""
    queue_of_module.clear()
    return queue_of_module


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[tuple[ServerProcess, str]]:
    """Give a running server, and its user's key."""
    with running(database_url, tmp_path / "log") as started:
        yield started
