"""What is done to jobs, with what follows for their documents, in one unit of work.

Locks are taken in the house's order, document before job. Which change a state allows is decided in
``rules.py``; the document's side of it in the documents' store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morag_meta.db.unit import Row
from morag_meta.errors import AlreadyExists, Reason, wrong_state
from morag_meta.jobs import rules
from morag_meta.jobs.rules import INGESTION, Outcome, Verb
from morag_meta.rpc.etags import check_etag
from morag_meta.uow import UnitOfWork


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of a job: which attempt, the how manieth report, and the text for people."""

    attempt: int
    number: int
    summary: str = ""


def create_job(  # noqa: PLR0913 - a job has these parts, all but two of them optional
    uow: UnitOfWork,
    owner_id: str,
    *,
    kind: str,
    document_id: str | None = None,
    priority: int = 2,
    remote: bool = False,
    parameters: Mapping[str, Any] | None = None,
    predecessor_id: str | None = None,
) -> Row:
    """Make a job of an owner, for one of the owner's documents or for none.

    Raises:
        NotFound: the owner has no such document.
        WrongState: the document is deleted.
        AlreadyExists: the document has an open INGESTION job (JOB_ALREADY_OPEN).
    """
    fields: dict[str, Any] = {
        "kind": kind,
        "priority": priority,
        "execution": "REMOTE" if remote else "LOCAL",
        "parameters": dict(parameters or {}),
        "predecessor_id": predecessor_id,
    }
    if document_id:
        document = uow.documents.lock(owner_id, document_id)
        if document["state"] == "DELETED":
            raise wrong_state("document", document["state"], "the document is deleted")
        open_job = uow.jobs.find_open_ingestion(owner_id, document_id) if kind == INGESTION else None
        if open_job is not None:
            raise AlreadyExists(
                "the document has an open ingestion job",
                reason=Reason.JOB_ALREADY_OPEN,
                metadata={"job_id": open_job},
            )
        fields |= {
            "document_id": document_id,
            "document_name": document["name"],
            "document_type": document["type"],
            "database_id": document["database_id"],
        }
    state = "WAITING_FOR_REMOTE_WORKER" if remote else "PENDING"
    return uow.jobs.add(owner_id, state, fields)


def start_job(uow: UnitOfWork, reach: str, job_id: str, *, etag: str = "") -> Row:
    """Start the next attempt of a job; its document is being ingested from now on.

    Raises:
        NotFound, WrongState, Stale: see ``StartJob`` in the protos.
    """
    row = _lock_with_document(uow, reach, job_id)
    check_etag(etag, row)
    state = rules.after(row["state"], Verb.START)
    if row["kind"] == INGESTION:
        uow.documents.start_ingestion(row["owner_id"], row["document_id"])
    return uow.jobs.change(
        row,
        state=state,
        attempt=row["attempt"] + 1,
        report_number=0,
        percentage=0,
        start_time=uow.now,
    )


def report_progress(
    uow: UnitOfWork, reach: str, job_id: str, report: Report, *, percentage: int, phase: str
) -> tuple[Row, Outcome]:
    """Take a report of progress; the percentage never falls within an attempt.

    Raises:
        NotFound, WrongState: see ``UpdateJobProgress`` in the protos.
    """
    row = uow.jobs.lock(reach, job_id)
    outcome = rules.judge_report(row, None, report.attempt, report.number)
    if outcome is not Outcome.APPLIED:
        return row, outcome
    changed = uow.jobs.change(
        row,
        report_number=report.number,
        percentage=max(percentage, row["percentage"]),
        phase=phase or row["phase"],
        summary=report.summary or row["summary"],
    )
    return changed, outcome


def complete_job(
    uow: UnitOfWork,
    reach: str,
    job_id: str,
    report: Report,
    *,
    chunks: int,
    quality: float,
    metadata: Mapping[str, Any],
) -> tuple[Row, Outcome]:
    """End a job well; its document is ingested.

    Raises:
        NotFound, WrongState: see ``CompleteJob`` in the protos.
    """
    row = _lock_with_document(uow, reach, job_id)
    outcome = rules.judge_report(row, Verb.COMPLETE, report.attempt, report.number)
    if outcome is not Outcome.APPLIED:
        return row, outcome
    if row["kind"] == INGESTION:
        uow.documents.complete_ingestion(
            row["owner_id"], row["document_id"], chunks=chunks, quality=quality, metadata=metadata
        )
    ended = uow.jobs.end(
        row,
        Verb.COMPLETE,
        report_number=report.number,
        percentage=100,
        summary=report.summary or row["summary"],
        result={"chunks": chunks, "quality": quality, "metadata": dict(metadata)},
    )
    return ended, outcome


def fail_job(uow: UnitOfWork, reach: str, job_id: str, report: Report, *, error: str) -> tuple[Row, Outcome]:
    """End a job with an error; its document is what it was before.

    Raises:
        NotFound, WrongState: see ``FailJob`` in the protos.
    """
    row = _lock_with_document(uow, reach, job_id)
    outcome = rules.judge_report(row, Verb.FAIL, report.attempt, report.number)
    if outcome is not Outcome.APPLIED:
        return row, outcome
    if row["kind"] == INGESTION:
        uow.documents.abandon_ingestion(row["owner_id"], row["document_id"], error=error)
    ended = uow.jobs.end(
        row,
        Verb.FAIL,
        report_number=report.number,
        summary=report.summary or row["summary"],
        error=error,
    )
    return ended, outcome


def cancel_job(uow: UnitOfWork, reach: str, job_id: str, *, reason: str = "", etag: str = "") -> Row:
    """Call a job off; its document is what it was before.

    Raises:
        NotFound, WrongState, Stale: see ``CancelJob`` in the protos.
    """
    row = _lock_with_document(uow, reach, job_id)
    check_etag(etag, row)
    rules.after(row["state"], Verb.CANCEL)
    if row["kind"] == INGESTION and row["state"] == "PROCESSING":
        uow.documents.abandon_ingestion(row["owner_id"], row["document_id"], error=None)
    return uow.jobs.end(row, Verb.CANCEL, summary=reason or row["summary"])


def retry_job(uow: UnitOfWork, reach: str, job_id: str) -> Row:
    """Make a new job that does what a failed or cancelled one was to do.

    Raises:
        NotFound, WrongState, AlreadyExists: see ``RetryJob`` in the protos.
    """
    row = uow.jobs.get(reach, job_id)
    rules.check_retry(row["state"])
    return create_job(
        uow,
        row["owner_id"],
        kind=row["kind"],
        document_id=row["document_id"],
        priority=row["priority"],
        remote=row["execution"] == "REMOTE",
        parameters=row["parameters"],
        predecessor_id=row["id"],
    )


def _lock_with_document(uow: UnitOfWork, reach: str, job_id: str) -> Row:
    """Lock a job, and before it the document that an INGESTION job carries along."""
    row = uow.jobs.get(reach, job_id)
    if row["kind"] == INGESTION:
        uow.documents.lock(row["owner_id"], row["document_id"])
    return uow.jobs.lock(reach, job_id)
