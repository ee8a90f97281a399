"""The model of a job: what is shown of it, its changes, and the events that tell them."""

from __future__ import annotations

from typing import Any, Final

from tests.model.steps import present
from tests.model.things import Job
from tests.model.world import World

INGESTION: Final = "INGESTION"
FINAL: Final = ("FINISHED", "FAILED", "CANCELLED")
PRIORITIES: Final = ("", "LOW", "NORMAL", "HIGH", "URGENT")


def shown(job: Job) -> dict[str, Any]:
    """Give what is shown of a job."""
    return present(
        id=job.id,
        owner_id=job.owner,
        kind=job.kind,
        state=job.state,
        document_id=job.document,
        document_name=job.document_name,
        document_type=job.document_type,
        database_id=job.database,
        priority=PRIORITIES[job.priority],
        execution="REMOTE" if job.remote else "LOCAL",
        attempt=job.attempt,
        report_number=job.report_number,
        percentage=job.percentage,
        phase=job.phase,
        summary=job.summary,
        error=job.error,
        predecessor_id=job.predecessor,
        last_sequence=len(job.events),
        start_time=job.started,
        end_time=job.state in FINAL,
        failure="REPORTED" if job.state == "FAILED" else None,
        worker_id=job.worker,
        lease_expire_time=job.state == "PROCESSING",
        result=present(chunks=job.chunks, quality=job.quality),
    )


def change(job: Job, **changes: Any) -> None:
    """Change a job, and note the event that tells it."""
    before = {"previous_state": job.state, "previous_percentage": job.percentage}
    before["previous_worker_id"] = job.worker
    for name, value in changes.items():
        setattr(job, name, value)
    note(job, before)


def note(job: Job, before: dict[str, Any]) -> None:
    """Note the event that tells how a job is now; ``before`` is what it says of how it was."""
    event = present(
        job_id=job.id,
        sequence=len(job.events) + 1,
        owner_id=job.owner,
        state=job.state,
        attempt=job.attempt,
        percentage=job.percentage,
        phase=job.phase,
        summary=job.summary,
        error=job.error,
        kind=job.kind,
        document_id=job.document,
        document_type=job.document_type,
        database_id=job.database,
        worker_id=job.worker,
        failure="REPORTED" if job.state == "FAILED" else None,
        **before,
    )
    job.events.append(event)


def end(world: World, job: Job, state: str, **changes: Any) -> None:
    """End a job."""
    change(job, state=state, **changes)
    job.ended = world.step


def open_ingestion(world: World, document: str) -> Job | None:
    """Give the open INGESTION job of a document."""
    for job in world.jobs.values():
        if job.document == document and job.kind == INGESTION and job.state not in FINAL:
            return job
    return None


def is_waiting(job: Job) -> bool:
    """Whether a job can be leased."""
    return job.state in ("PENDING", "WAITING_FOR_REMOTE_WORKER")
