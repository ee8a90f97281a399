"""Works on ingestion jobs: leases them one by one, reads and chunks their files, and reports how far it is.

    MORAG_API_KEY=... python examples/worker.py [--until-idle] [--pause SECONDS]

Several may run at once: each job is leased to one of them. Every report is repeated until it is answered;
attempt and report number make that harmless. A file that is gone, changed or no text fails its job with
the reason, which becomes the document's last error. A job that was cancelled, or whose document was
deleted, is dropped at the next report. Ctrl-C ends the worker after the job in hand, a second Ctrl-C at
once.

Heartbeats renew the lease while the worker lives. A worker that is killed sends none: its lease expires,
and after a pause another worker leases the job as the next attempt.

What does not live here: how text is cut (``chunking.py``). What a real worker would do with each chunk,
such as embedding and storing it, belongs where :func:`ingest` counts it.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import platform
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

import grpc
from chunking import CHUNK_CHARACTERS, OVERLAP_CHARACTERS, NotTextError, chunk, decode, printable_share
from connection import Connection, code, explain, reason, wait_of
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from moragmeta.v1 import documents_pb2, jobs_pb2, workers_pb2

WAIT_SECONDS: Final = 5  # that a call waits for a job
REPORTS: Final = 20  # as many progress reports as a job gets at most

_NOT_OURS: Final = frozenset(
    {"INVALID_STATE", "JOB_ENDED", "STALE_ATTEMPT", "LEASE_LOST", "RESOURCE_NOT_FOUND"}
)

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class JobGoneError(Exception):
    """The job is no longer this worker's: its lease expired, it ended, or it was deleted."""


class IngestionError(Exception):
    """The document cannot be ingested; the message says why, for the document's owner."""


class Reports:
    """The reports of one attempt, numbered from 1, under its lease."""

    def __init__(self, connection: Connection, lease: workers_pb2.Lease) -> None:
        self._connection = connection
        self._lease = lease
        self._job = lease.job
        self._number = 0

    def progress(self, percentage: int, phase: str, summary: str) -> None:
        """Say how far the job is.

        Raises:
            JobGoneError: it was cancelled or deleted.
        """
        request = jobs_pb2.UpdateJobProgressRequest(
            id=self._job.id,
            attempt=self._job.attempt,
            report_number=self._next(),
            percentage=percentage,
            phase=phase,
            summary=summary,
            lease_token=self._lease.token,
        )
        ask(self._connection, self._connection.jobs.UpdateJobProgress, request)

    def complete(self, result: jobs_pb2.JobResult, summary: str) -> None:
        """Say that the job went well.

        Raises:
            JobGoneError: it was cancelled or deleted.
            IngestionError: the service does not take the result.
        """
        request = jobs_pb2.CompleteJobRequest(
            id=self._job.id,
            attempt=self._job.attempt,
            report_number=self._next(),
            result=result,
            summary=summary,
            lease_token=self._lease.token,
        )
        ask(self._connection, self._connection.jobs.CompleteJob, request)

    def fail(self, error: str) -> None:
        """Say why the job failed.

        Raises:
            JobGoneError: it was cancelled or deleted.
        """
        request = jobs_pb2.FailJobRequest(
            id=self._job.id,
            attempt=self._job.attempt,
            report_number=self._next(),
            error=error[:2000],
            lease_token=self._lease.token,
        )
        ask(self._connection, self._connection.jobs.FailJob, request)

    def _next(self) -> int:
        self._number += 1
        return self._number


class Worker:
    """Takes jobs for as long as it is wanted."""

    def __init__(self, connection: Connection, pause: float) -> None:
        self.connection = connection
        self._pause = pause
        self._stopping = threading.Event()
        self._id = ""

    def run(self, *, until_idle: bool) -> None:
        """Lease job after job, the urgent and then the old ones first, and wait while there is none."""
        while not self._stopping.is_set():
            leases = self._lease(0 if until_idle else WAIT_SECONDS)
            for lease in leases:
                self._take(lease)
            if not leases and until_idle:
                return

    def stop(self, number: int, _: FrameType | None) -> None:
        """Handle a signal: the first ends the worker after the job in hand, the second at once."""
        if self._stopping.is_set():
            sys.exit(128 + number)
        self._stopping.set()

    def _register(self) -> None:
        worker = workers_pb2.Worker(name=f"example on {platform.node()}"[:255], kinds=["INGESTION"])
        request = workers_pb2.RegisterWorkerRequest(worker=worker, request_id=str(uuid.uuid4()))
        self._id = self.connection.call(self.connection.workers.RegisterWorker, request, patience=math.inf).id

    def _lease(self, wait: int) -> list[workers_pb2.Lease]:
        if not self._id:
            self._register()
        # With one request id, a repeat after a lost answer gives the leases of that answer.
        request = workers_pb2.LeaseJobsRequest(
            worker_id=self._id, max_jobs=1, wait=Duration(seconds=wait), request_id=str(uuid.uuid4())
        )
        try:
            answer = self.connection.call(self.connection.workers.LeaseJobs, request, patience=math.inf)
        except grpc.RpcError as error:
            if reason(error) == "TOO_MANY_STREAMS":  # no place to wait in is left, and there was no job
                time.sleep(wait_of(error, WAIT_SECONDS))
                return []
            if code(error) is not grpc.StatusCode.NOT_FOUND:
                raise
            self._register()  # the service forgets who was not seen for a day
            return self._lease(wait)
        return list(answer.leases)

    def _take(self, lease: workers_pb2.Lease) -> None:
        try:
            with heartbeats(self.connection, lease):
                said = self._work(lease)
        except JobGoneError as gone:
            said = f"left: {gone}"
        print(f"{lease.job.document_name}: {said}", flush=True)

    def _work(self, lease: workers_pb2.Lease) -> str:
        reports = Reports(self.connection, lease)
        try:
            result = ingest(lease.document, reports, self._pause)
            summary = f"{result.chunks} chunks"
            reports.complete(result, summary)
        except IngestionError as error:
            reports.fail(str(error))
            return f"failed: {error}"
        return summary


@contextmanager
def heartbeats(connection: Connection, lease: workers_pb2.Lease) -> Iterator[None]:
    """Renew a lease from a thread, three times in its life, until the work is done or nobody wants it."""
    done = threading.Event()
    request = workers_pb2.HeartbeatJobRequest(job_id=lease.job.id, lease_token=lease.token)
    pause = lease.duration.ToMilliseconds() / 3000

    def beat() -> None:
        while not done.wait(pause):
            try:
                answer = connection.call(connection.workers.HeartbeatJob, request, patience=pause)
            except grpc.RpcError:
                continue  # the next one may be answered, and a report says what became of the job
            if answer.verdict != workers_pb2.HEARTBEAT_VERDICT_GO_ON:
                return

    thread = threading.Thread(target=beat, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def ask(
    connection: Connection, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
) -> _Response:
    """Call for a job, for as long as it takes to be answered.

    Raises:
        JobGoneError: the job is not this worker's, or not any more.
        IngestionError: the service does not take what the document became.
    """
    try:
        return connection.call(method, request, patience=math.inf)
    except grpc.RpcError as error:
        if reason(error) in _NOT_OURS:
            raise JobGoneError(explain(error)) from None
        if code(error) is grpc.StatusCode.INVALID_ARGUMENT:
            raise IngestionError(explain(error)) from None
        raise


def ingest(document: documents_pb2.Document, reports: Reports, pause: float) -> jobs_pb2.JobResult:
    """Read a document's file, cut it, and return what came of it; rest ``pause`` seconds at each report.

    Raises:
        IngestionError: there is no such file, it is another than was registered, or it is no text.
        JobGoneError: the job was cancelled or deleted meanwhile.
    """
    reports.progress(0, "reading", f"reading {document.name}")
    time.sleep(pause)
    text = read(document)
    chunks, characters, reported = 0, 0, 0
    for piece in chunk(text):
        chunks += 1
        characters += len(piece) - (OVERLAP_CHARACTERS if chunks > 1 else 0)
        percentage = min(99, max(0, 100 * characters // len(text)))
        if percentage >= reported + 100 // REPORTS:
            reported = percentage
            reports.progress(percentage, "chunking", f"{chunks} chunks so far")
            time.sleep(pause)
    metadata = Struct()
    metadata.update(
        {
            "characters": len(text),
            "chunking": f"paragraphs packed to {CHUNK_CHARACTERS}, overlap {OVERLAP_CHARACTERS}",
            "quality_is": "share of printable characters",
        }
    )
    return jobs_pb2.JobResult(chunks=chunks, quality=printable_share(text), metadata=metadata)


def read(document: documents_pb2.Document) -> str:
    """Return the text of the file that was registered.

    Raises:
        IngestionError: see :func:`ingest`.
    """
    source = urlsplit(document.source)
    if source.scheme != "file":
        raise IngestionError(f"the source {document.source!r} is not a file of this machine")
    try:
        content = Path(unquote(source.path)).read_bytes()
    except OSError as error:
        raise IngestionError(f"the file cannot be read: {error.strerror}") from None
    if document.content_hash != f"sha256:{hashlib.sha256(content).hexdigest()}":
        raise IngestionError("the file has changed since it was registered; register it again")
    try:
        return decode(content)
    except NotTextError as error:
        raise IngestionError(str(error)) from None


def seconds(text: str) -> float:
    """Read a pause; what is none raises ValueError, which argparse tells."""
    value = float(text)
    if not 0 <= value <= threading.TIMEOUT_MAX:
        raise ValueError(text)
    return value


def main() -> None:
    """Read the command line and work."""
    parser = argparse.ArgumentParser(description="Work on the ingestion jobs of the API key's owner.")
    parser.add_argument("--until-idle", action="store_true", help="end when no job is open")
    parser.add_argument(
        "--pause", type=seconds, default=0.0, metavar="SECONDS", help="rest at each report, to be watched"
    )
    arguments = parser.parse_args()
    with Connection() as connection:
        worker = Worker(connection, arguments.pause)
        signal.signal(signal.SIGINT, worker.stop)
        signal.signal(signal.SIGTERM, worker.stop)
        try:
            worker.run(until_idle=arguments.until_idle)
        except grpc.RpcError as error:
            sys.exit(explain(error))


if __name__ == "__main__":
    main()
