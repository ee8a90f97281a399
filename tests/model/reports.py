"""The model of workers: what is leased to them, and what they say of their jobs."""

from __future__ import annotations

from typing import Any

from tests.model import documents, jobs, queue, work
from tests.model.jobs import FINAL, INGESTION
from tests.model.places import shown_database
from tests.model.steps import Step, missing, present, stuck
from tests.model.things import Job, Worker
from tests.model.world import Given, Principal, World, check_etag, of, rule


def _shown(world: World, worker: Worker) -> dict[str, Any]:
    held = [job for job in world.jobs.values() if job.worker == worker.id and job.state == "PROCESSING"]
    return present(
        id=worker.id,
        owner_id=worker.owner,
        name="worker",
        kinds=list(worker.kinds),
        execution=worker.execution,
        serves_everyone=worker.serves_everyone,
        leased_jobs=len(held),
        last_seen_time=True,
    )


@rule("RegisterWorker")
def _register(world: World, caller: Principal, given: Given, step: Step) -> Any:
    sent = given["worker"]
    execution = sent.get("execution", "").removeprefix("JOB_EXECUTION_")
    everyone = caller.has("jobs:work:all")
    worker = Worker(step.made, caller.user, tuple(sent.get("kinds", ())), execution, everyone)
    world.workers[worker.id] = worker
    return _shown(world, worker)


def _reach(caller: Principal) -> bool:
    return caller.is_admin and caller.has("jobs:read")


@rule("GetWorker")
def _get(world: World, caller: Principal, given: Given, step: Step) -> Any:
    worker = world.workers.get(given["id"])
    if worker is None or not (worker.owner == caller.user or _reach(caller)):
        raise missing()
    return _shown(world, worker)


@rule("ListWorkers")
def _list(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return [_shown(world, worker) for worker in of(caller.user, world.workers.values())]


@rule("LeaseJobs")
def _lease(world: World, caller: Principal, given: Given, step: Step) -> Any:
    worker = world.workers.get(given["worker_id"])
    if worker is None or worker.owner != caller.user:
        raise missing()
    everyone = worker.serves_everyone and caller.has("jobs:work:all")
    state = {"": None, "LOCAL": "PENDING", "REMOTE": "WAITING_FOR_REMOTE_WORKER"}[worker.execution]
    ready = [
        job
        for job in world.jobs.values()
        if jobs.is_waiting(job)
        and (everyone or job.owner == caller.user)
        and (state is None or job.state == state)
        and (not worker.kinds or job.kind in worker.kinds)
    ]
    leased = queue.next_of(world, ready, given.get("max_jobs", 1), of_everyone=everyone)
    if everyone:
        queue.note_turns(world, leased, step.number)
    shown = []
    for job in leased:
        work.lease(world, job, worker.id)
        shown.append(_lease_of(world, job))
    return present(leases=shown)


def _lease_of(world: World, job: Job) -> dict[str, Any]:
    document = world.documents.get(job.document)
    database = None if document is None else world.databases.get(document.database)
    return present(
        job=jobs.shown(job),
        document=None if document is None else documents.shown(document),
        database=None if database is None else shown_database(world, database),
        duration="3600s",
        expire_time=True,
    )


@rule("StartJob")
def _start(world: World, caller: Principal, given: Given, step: Step) -> Any:
    job = world.own(world.jobs, given["id"], caller)
    check_etag(given)
    if job.state in FINAL:
        raise stuck("JOB_ENDED")
    if job.state == "PROCESSING":
        raise stuck()
    work.lease(world, job)
    return jobs.shown(job)


def _reported(world: World, caller: Principal, label: str, token: str) -> tuple[Job, bool]:
    """Give the job that a report is of, and whether its lease was shown, or rightly left out."""
    everyone = caller.has("jobs:work:all")
    is_writer = caller.has("jobs:write") and not (everyone and token)
    job = world.jobs.get(label)
    reaches = (caller.is_admin if is_writer else everyone) or (job is not None and job.owner == caller.user)
    if job is None or not reaches:
        raise missing()
    if token:
        return job, token == job.token
    return job, is_writer and not job.worker


def _judge(job: Job, given: Given, *, shows: bool, ends_as: str = "") -> str:
    """Say what a report does: APPLIED, REPEATED or IGNORED."""
    number = given["report_number"]
    if jobs.is_waiting(job):
        raise stuck("LEASE_LOST" if job.attempt else "INVALID_STATE")
    if given["attempt"] != job.attempt:
        raise stuck("STALE_ATTEMPT")
    if not shows:
        raise stuck("LEASE_LOST")
    if job.state in FINAL:
        return _judge_late(job, number, ends_as)
    if number > job.report_number:
        return "APPLIED"
    if number < job.report_number:
        return "IGNORED"
    if not ends_as:
        return "REPEATED"
    raise stuck("REPORT_NUMBER_USED")


def _judge_late(job: Job, number: int, ends_as: str) -> str:
    if job.state != "CANCELLED" and number < job.report_number:
        return "IGNORED"
    if number == job.report_number and ends_as == job.state:
        return "REPEATED"
    raise stuck("JOB_ENDED")


@rule("UpdateJobProgress")
def _progress(world: World, caller: Principal, given: Given, step: Step) -> Any:
    job, shows = _reported(world, caller, given["id"], given.get("lease_token", ""))
    outcome = _judge(job, given, shows=shows)
    if outcome == "APPLIED":
        jobs.change(
            job,
            report_number=given["report_number"],
            percentage=max(given.get("percentage", 0), job.percentage),
            phase=given.get("phase", "") or job.phase,
        )
    return {"job": jobs.shown(job), "outcome": outcome}


@rule("CompleteJob")
def _complete(world: World, caller: Principal, given: Given, step: Step) -> Any:
    job, shows = _reported(world, caller, given["id"], given.get("lease_token", ""))
    outcome = _judge(job, given, shows=shows, ends_as="FINISHED")
    result = given["result"]
    if outcome == "APPLIED":
        if job.kind == INGESTION:
            document = work.document_of(world, job)
            document.state, document.before_ingestion = "INGESTED", ""
            document.chunks, document.quality = result["chunks"], result["quality"]
            document.ingested_version, document.last_error = document.version, ""
            document.reason, document.deprecated = "", False
        job.chunks, job.quality = result["chunks"], result["quality"]
        jobs.end(world, job, "FINISHED", report_number=given["report_number"], percentage=100)
    return {"job": jobs.shown(job), "outcome": outcome}


@rule("FailJob")
def _fail(world: World, caller: Principal, given: Given, step: Step) -> Any:
    job, shows = _reported(world, caller, given["id"], given.get("lease_token", ""))
    outcome = _judge(job, given, shows=shows, ends_as="FAILED")
    if outcome == "APPLIED":
        work.abandon(world, job, given["error"])
        jobs.end(world, job, "FAILED", report_number=given["report_number"], error=given["error"])
    return {"job": jobs.shown(job), "outcome": outcome}


@rule("HeartbeatJob")
def _beat(world: World, caller: Principal, given: Given, step: Step) -> Any:
    job, shows = _reported(world, caller, given["job_id"], given["lease_token"])
    if job.state == "PROCESSING" and shows:
        return {"verdict": "GO_ON", "expire_time": True}
    return {"verdict": "CANCEL" if job.state == "CANCELLED" and shows else "LOST"}


@rule("ReleaseJob")
def _release(world: World, caller: Principal, given: Given, step: Step) -> Any:
    job, shows = _reported(world, caller, given["job_id"], given["lease_token"])
    if job.state in FINAL:
        raise stuck("JOB_ENDED")
    if job.state != "PROCESSING" or not shows:
        raise stuck("LEASE_LOST")
    work.abandon(world, job)
    jobs.change(
        job,
        state="WAITING_FOR_REMOTE_WORKER" if job.remote else "PENDING",
        summary=given.get("reason", "") or job.summary,
        worker="",
        token="",
    )
    return jobs.shown(job)
