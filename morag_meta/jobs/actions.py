"""What is done to jobs, with what follows for their documents, in one unit of work.

Locks are taken in the house's order, document before job. ``grantee`` is who acts, for whom a job or
document beyond their reach that is shared with them for writing is there as well; a lesser grant is
``Forbidden`` (GRANT_TOO_LOW). Which change a state allows is decided in ``rules.py``; the document's side of
it in the documents' store.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from morag_meta.auth.narrowing import Whose, among, check_outside, narrowing_of, owner_of
from morag_meta.auth.sharing import Grantee, Level
from morag_meta.db.unit import Row
from morag_meta.errors import AlreadyExists, NotFound, Reason, invalid, wrong_state
from morag_meta.jobs import rules
from morag_meta.jobs.leases import LEASE_MS, lease, renewal
from morag_meta.jobs.limits import (
    FALLBACK_MS,
    MAX_ATTEMPTS,
    SCHEDULE_TO_CLOSE_MS,
    SCHEDULE_TO_START_MS,
    start_to_close_ms,
)
from morag_meta.jobs.rules import INGESTION, NOBODY, WAITING, Holder, Outcome, Verb
from morag_meta.rpc.etags import check_etag
from morag_meta.uow import UnitOfWork

_LONGEST_DELAY: Final = dt.timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of a job: which attempt, the how manieth report, by whom, and text for people."""

    attempt: int
    number: int
    summary: str = ""
    holder: Holder = NOBODY


@dataclass(frozen=True, slots=True)
class Plan:
    """When and how long a job may run; None stands for the default. Milliseconds where nothing else is said.

    ``max_attempts`` counts leases that expire.
    """

    not_before: dt.datetime | None = None
    max_attempts: int = MAX_ATTEMPTS
    schedule_to_start_ms: int = SCHEDULE_TO_START_MS
    start_to_close_ms: int | None = None
    schedule_to_close_ms: int = SCHEDULE_TO_CLOSE_MS
    fallback_delay_ms: int = FALLBACK_MS


def create_job(  # noqa: PLR0913 - a job has these parts, all but two of them optional
    uow: UnitOfWork,
    owner: Whose,
    *,
    kind: str,
    document_id: str | None = None,
    priority: int = 2,
    remote: bool = False,
    parameters: Mapping[str, Any] | None = None,
    predecessor_id: str | None = None,
    plan: Plan = Plan(),
    grantee: Grantee | None = None,
) -> Row:
    """Make a job of an owner, for one of the owner's documents or for none.

    For a document that is shared the job is of the document's owner instead.

    Raises:
        Invalid: ``not_before`` is too far away.
        NotFound: the owner has no such document.
        Forbidden: it would be of no document, and the API key that asks is narrowed (KEY_NARROWED).
        WrongState: the document is deleted.
        AlreadyExists: the document has an open INGESTION job (JOB_ALREADY_OPEN), named to who sees it.
    """
    fields: dict[str, Any] = {
        "kind": kind,
        "priority": priority,
        "execution": "REMOTE" if remote else "LOCAL",
        "parameters": dict(parameters or {}),
        "predecessor_id": predecessor_id,
    }
    owner_id = owner_of(owner)
    if not document_id:
        check_outside(owner, "a job of no document")
    else:
        document = uow.documents.lock(owner, document_id, grantee)
        owner_id = document["owner_id"]
        if document["state"] == "DELETED":
            raise wrong_state("document", document["state"], "the document is deleted")
        open_job = uow.jobs.find_open_ingestion(owner_id, document_id) if kind == INGESTION else None
        if open_job is not None:
            raise _already_open(uow, owner, open_job, grantee)
        fields |= {
            "document_id": document_id,
            "document_name": document["name"],
            "document_type": document["type"],
            "database_id": document["database_id"],
        }
    fields |= _planned(plan, remote=remote, document_type=fields.get("document_type"))
    fields["clock"] = uow.queue.now()
    if plan.not_before is not None and plan.not_before > fields["clock"] + _LONGEST_DELAY:
        raise invalid("job.not_before", f"must be at most {_LONGEST_DELAY.days} days from now")
    return uow.jobs.add(owner_id, WAITING[fields["execution"]], fields)


def _already_open(uow: UnitOfWork, whose: Whose, job_id: str, grantee: Grantee | None) -> AlreadyExists:
    """Say that there is an open job, and which, unless it is of a database that who asks does not reach."""
    reader = None if grantee is None else replace(grantee, needs=Level.READER)
    metadata = {}
    with contextlib.suppress(NotFound):
        metadata["job_id"] = uow.jobs.get(whose, job_id, reader)["id"]
    what = "the document has an open ingestion job"
    return AlreadyExists(what, reason=Reason.JOB_ALREADY_OPEN, metadata=metadata)


def _planned(plan: Plan, *, remote: bool, document_type: str | None) -> dict[str, Any]:
    limit = plan.start_to_close_ms
    return {
        "not_before": plan.not_before,
        "max_attempts": plan.max_attempts,
        "schedule_to_start_ms": plan.schedule_to_start_ms,
        "start_to_close_ms": start_to_close_ms(document_type) if limit is None else limit,
        "schedule_to_close_ms": plan.schedule_to_close_ms,
        "fallback_delay_ms": plan.fallback_delay_ms if remote else None,
    }


def start_job(uow: UnitOfWork, reach: Whose, job_id: str, *, etag: str = "", lease_ms: int = LEASE_MS) -> Row:
    """Lease one job to whoever asks; its document is being ingested from now on.

    Raises:
        NotFound, WrongState, Stale: see ``StartJob`` in the protos.
    """
    row = lock_with_document(uow, reach, job_id)
    check_etag(etag, row)
    return lease(uow, row, worker_id=None, lease_ms=lease_ms)


def report_progress(
    uow: UnitOfWork, reach: Whose, job_id: str, report: Report, *, percentage: int, phase: str
) -> tuple[Row, Outcome]:
    """Take a report of progress; the percentage never falls within an attempt.

    Raises:
        NotFound, WrongState: see ``UpdateJobProgress`` in the protos.
    """
    row = uow.jobs.lock(reach, job_id)
    outcome = rules.judge_report(row, None, report.attempt, report.number, report.holder)
    if outcome is not Outcome.APPLIED:
        return row, outcome
    changed = uow.jobs.change(
        row,
        **renewal(row),
        report_number=report.number,
        percentage=max(percentage, row["percentage"]),
        phase=phase or row["phase"],
        summary=report.summary or row["summary"],
    )
    return changed, outcome


def complete_job(
    uow: UnitOfWork,
    reach: Whose,
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
    row = lock_with_document(uow, reach, job_id)
    outcome = rules.judge_report(row, Verb.COMPLETE, report.attempt, report.number, report.holder)
    if outcome is not Outcome.APPLIED:
        return row, outcome
    if row["kind"] == INGESTION:
        uow.documents.complete_ingestion(
            row["owner_id"],
            row["document_id"],
            time=row["clock"],
            chunks=chunks,
            quality=quality,
            metadata=metadata,
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


def fail_job(
    uow: UnitOfWork, reach: Whose, job_id: str, report: Report, *, error: str
) -> tuple[Row, Outcome]:
    """End a job with an error; its document is what it was before.

    Raises:
        NotFound, WrongState: see ``FailJob`` in the protos.
    """
    row = lock_with_document(uow, reach, job_id)
    outcome = rules.judge_report(row, Verb.FAIL, report.attempt, report.number, report.holder)
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
        failure="REPORTED",
    )
    return ended, outcome


def cancel_job(
    uow: UnitOfWork,
    reach: Whose,
    job_id: str,
    *,
    reason: str = "",
    etag: str = "",
    grantee: Grantee | None = None,
) -> Row:
    """Call a job off; its document is what it was before.

    Raises:
        NotFound, WrongState, Stale: see ``CancelJob`` in the protos.
    """
    row = lock_with_document(uow, reach, job_id, grantee)
    check_etag(etag, row)
    rules.after(row["state"], Verb.CANCEL)
    if row["kind"] == INGESTION and row["state"] == "PROCESSING":
        uow.documents.abandon_ingestion(row["owner_id"], row["document_id"], error=None)
    return uow.jobs.end(row, Verb.CANCEL, summary=reason or row["summary"])


def retry_job(uow: UnitOfWork, reach: Whose, job_id: str, grantee: Grantee | None = None) -> Row:
    """Make a new job that does what a failed or cancelled one was to do.

    By a grant only while its document is still in a database that is shared for writing.

    Raises:
        NotFound, WrongState, AlreadyExists: see ``RetryJob`` in the protos.
    """
    row = uow.jobs.get(reach, job_id, grantee)
    rules.check_retry(row["state"])
    owner_id = grantee.user_id if grantee is not None and "granted_level" in row else row["owner_id"]
    return create_job(
        uow,
        among(reach, owner_id),
        kind=row["kind"],
        document_id=row["document_id"],
        priority=row["priority"],
        remote=row["fallback_delay_ms"] is not None,
        parameters=row["parameters"],
        predecessor_id=row["id"],
        plan=_plan_of(row),
        grantee=grantee,
    )


def _plan_of(row: Row) -> Plan:
    """Give the plan that a job was made with, to begin now."""
    return Plan(
        max_attempts=row["max_attempts"],
        schedule_to_start_ms=row["schedule_to_start_ms"],
        start_to_close_ms=row["start_to_close_ms"],
        schedule_to_close_ms=row["schedule_to_close_ms"],
        fallback_delay_ms=row["fallback_delay_ms"] or FALLBACK_MS,
    )


def lock_with_document(uow: UnitOfWork, reach: Whose, job_id: str, grantee: Grantee | None = None) -> Row:
    """Lock a job, and before it the document that an INGESTION job carries along.

    By a grant, or a narrowed API key, the document is locked whatever the job is, and must still be in a
    database that is shared, or within the narrowing.
    """
    row = uow.jobs.get(reach, job_id, grantee)
    if "granted_level" in row or narrowing_of(reach) is not None:
        uow.documents.lock(reach, row["document_id"], grantee)
    elif row["kind"] == INGESTION:
        uow.documents.lock(row["owner_id"], row["document_id"])
    return uow.jobs.lock(reach, job_id, grantee)
