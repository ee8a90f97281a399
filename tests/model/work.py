"""The model of what is done with jobs, and what their documents become by that.

What their workers say of them stands in ``reports.py``.
"""

from __future__ import annotations

from typing import Any

from tests.model.documents import document_for
from tests.model.jobs import FINAL, INGESTION, PRIORITIES, change, end, note, open_ingestion, shown
from tests.model.steps import Refused, Step, missing, present, stuck
from tests.model.things import READER, WRITER, Document, Job
from tests.model.world import Given, Principal, World, check_etag, of, rule

PAST = "2026-01-01T00:00:00Z"
"""Before every walk."""


def job_for(world: World, label: str, caller: Principal, needs: int) -> Job:
    """Give a job that the caller has, or by a grant on the database that its document was in."""
    return world.shared(world.jobs, label, caller, needs, lambda job: job.database)


def document_of(world: World, job: Job) -> Document:
    """Give the document that an INGESTION job carries along."""
    return world.documents[job.document]


def abandon(world: World, job: Job, error: str | None = None) -> None:
    """Have the document of a job that runs be what it was before."""
    if job.kind == INGESTION and job.state == "PROCESSING":
        document = document_of(world, job)
        document.state, document.before_ingestion = document.before_ingestion, ""
        document.last_error = document.last_error if error is None else error


def lease(world: World, job: Job, worker: str = "") -> None:
    """Begin the next attempt of a job."""
    if job.kind == INGESTION:
        document = document_of(world, job)
        document.before_ingestion, document.state = document.state, "INGESTING"
    attempt = job.attempt + 1
    change(
        job,
        state="PROCESSING",
        attempt=attempt,
        report_number=0,
        percentage=0,
        started=True,
        worker=worker,
        token=f"{job.id}#{attempt}",
    )


@rule("CreateJob")
def _create(world: World, caller: Principal, given: Given, step: Step) -> Any:
    sent = given["job"]
    owner = world.owner_of_list(caller, given.get("owner_id", ""))
    job = _made(world, caller, owner, step, sent["kind"], sent.get("document_id", ""))
    job.remote = sent.get("execution") == "JOB_EXECUTION_REMOTE"
    job.priority = PRIORITIES.index(sent.get("priority", "JOB_PRIORITY_NORMAL").removeprefix("JOB_PRIORITY_"))
    return _queued(world, job)


def _made(world: World, caller: Principal, owner: str, step: Step, kind: str, label: str) -> Job:
    """Make a job that stands in no queue yet, of an owner, or by a grant of who shares the document."""
    job = Job(step.made, owner, kind, label, "", "", "", 2, False, step.number)
    if label:
        document = world.documents.get(label)
        if document is None or document.owner != owner:
            if caller.is_admin:
                raise missing()
            document = document_for(world, label, caller, WRITER)
        if document.state == "DELETED":
            raise stuck()
        if kind == INGESTION and open_ingestion(world, label) is not None:
            raise Refused("ALREADY_EXISTS", "JOB_ALREADY_OPEN")
        job.owner, job.document_name, job.document_type = document.owner, document.name, "pdf"
        job.database = document.database
    if job.owner not in world.users:
        raise missing()
    return job


def _queued(world: World, job: Job) -> dict[str, Any]:
    job.state = "WAITING_FOR_REMOTE_WORKER" if job.remote else "PENDING"
    world.jobs[job.id] = job
    note(job, {})
    return shown(job)


@rule("RetryJob")
def _retry(world: World, caller: Principal, given: Given, step: Step) -> Any:
    old = job_for(world, given["id"], caller, WRITER)
    if old.state not in ("FAILED", "CANCELLED"):
        raise stuck()
    is_shared = not (caller.is_admin or old.owner == caller.user)
    owner = caller.user if is_shared else old.owner
    job = _made(world, caller, owner, step, old.kind, old.document)
    job.remote, job.priority, job.predecessor = old.remote, old.priority, old.id
    return _queued(world, job)


@rule("GetJob")
def _get(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return shown(job_for(world, given["id"], caller, READER))


@rule("ListJobs")
def _list(world: World, caller: Principal, given: Given, step: Step) -> Any:
    chosen = given.get("filter", {})
    owner, where = world.owner_of_list(caller, chosen.get("owner_id", "")), chosen.get("database_id", "")
    if where and owner == caller.user and world.level(where, caller):
        owner = world.databases[where].owner
    return [shown(job) for job in _chosen(world, owner, chosen)]


def _chosen(world: World, owner: str, chosen: Given) -> list[Job]:
    """Give the jobs of an owner that a filter chooses, the newest first."""
    where = chosen.get("database_id", "")
    states = [state.removeprefix("JOB_STATE_") for state in chosen.get("states", ())]
    return [
        job
        for job in of(owner, world.jobs.values())
        if (not where or job.database == where)
        and (not chosen.get("document_id") or job.document == chosen["document_id"])
        and (not states or job.state in states)
    ]


@rule("PurgeJobs")
def _purge(world: World, caller: Principal, given: Given, step: Step) -> Any:
    """Remove jobs that have ended, the longest ended first; no grant gives that."""
    chosen = given.get("filter", {})
    owner = world.owner_of_list(caller, chosen.get("owner_id", ""))
    ended = [job for job in _chosen(world, owner, chosen) if job.state in FINAL]
    ended = sorted(ended, key=lambda job: (job.ended, job.made)) if given["end_time_before"] != PAST else []
    purged = ended[: given["max_jobs"]]
    for job in purged:
        del world.jobs[job.id]
    gone = {job.id for job in purged}
    for job in world.jobs.values():
        job.predecessor = "" if job.predecessor in gone else job.predecessor
    return present(purged_jobs=len(purged), more=len(purged) < len(ended))


@rule("ListJobEvents")
def _list_events(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return list(job_for(world, given["job_id"], caller, READER).events)


@rule("CancelJob")
def _cancel(world: World, caller: Principal, given: Given, step: Step) -> Any:
    job = job_for(world, given["id"], caller, WRITER)
    if not (caller.is_admin or job.owner == caller.user):
        document_for(world, job.document, caller, WRITER)
    check_etag(given)
    if job.state in FINAL:
        raise stuck("JOB_ENDED")
    abandon(world, job)
    end(world, job, "CANCELLED", summary=given.get("reason", "") or job.summary)
    return shown(job)
