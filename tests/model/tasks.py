"""What is sent with each method over documents, jobs and workers in a walk."""

from __future__ import annotations

from typing import Any, Final

from tests.model.jobs import is_waiting
from tests.model.requests import LEASE, LONG, SIZES, Dice, open_jobs, sends
from tests.model.work import PAST

_KINDS: Final = ("INGESTION", "REINDEX", "AUDIT")
_CHANGES: Final = ("name", "databaseId", "name,databaseId", "sizeBytes", "sizeBytes", "databaseId,sizeBytes")
_STATES: Final = ("PENDING", "PROCESSING", "FINISHED", "FAILED", "CANCELLED")


@sends("CreateDocument")
def _create_document(by: Dice, number: int) -> dict[str, Any]:
    return {**_upload(by, _name(by, number), _place(by)), **by.for_owner()}


@sends("BatchCreateDocuments")
def _create_documents(by: Dice, number: int) -> dict[str, Any]:
    """Create some, now and then two of one name, mostly all in one place, so that most batches succeed."""
    place, requests = _place(by), []
    for _ in range(by.dice.randint(1, 4)):
        name = _name(by, number * 10 + by.dice.randrange(4))
        requests.append(_upload(by, name, place if by.odds(0.9) else _place(by)))
    return {"requests": requests, **by.for_owner()}


def _place(by: Dice) -> dict[str, Any]:
    return by.maybe(0.75, database_id=by.mine(by.world.databases, "b"))


def _upload(by: Dice, name: str, place: dict[str, Any]) -> dict[str, Any]:
    document = {"name": name, "type": "pdf", **place}
    document |= by.maybe(0.5, size_bytes=by.dice.choice(SIZES))
    document |= by.maybe(0.25, external_id=f"ext-{by.dice.randrange(12)}")
    document |= by.maybe(0.25, content_hash=f"h{by.dice.randrange(12)}")
    wish = by.dice.choice(["REJECT", "REJECT", "RETURN_EXISTING", "NEW_VERSION"])
    return {"document": document, "on_duplicate": f"ON_DUPLICATE_{wish}"}


def _name(by: Dice, number: int) -> str:
    near = [d.name for d in by.world.documents.values() if d.owner == by.user]
    return str(by.dice.choice(near)) if near and by.odds(0.3) else f"d{number}"


@sends("GetDocument")
def _get_document(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.documents, "d")}


@sends("BatchGetDocuments")
def _get_documents(by: Dice, number: int) -> dict[str, Any]:
    return {"ids": [by.mine(by.world.documents, "d") for _ in range(by.dice.randint(1, 6))]}


@sends("ListDocuments")
def _list_documents(by: Dice, number: int) -> dict[str, Any]:
    where = by.maybe(0.6, database_id=by.mine(by.world.databases, "b"))
    if by.odds(0.1):
        where = {"database_id": "-"}
    return by.listing(**where, **by.maybe(0.4, show_deleted=True))


@sends("UpdateDocument")
def _update_document(by: Dice, number: int) -> dict[str, Any]:
    id = by.mine(by.world.documents, "d", lambda document: document.state != "DELETED")
    document = {"id": id, "name": _name(by, number), **by.etag()}
    document |= by.maybe(0.8, database_id=by.mine(by.world.databases, "b"))
    document |= by.maybe(0.8, size_bytes=by.dice.choice(SIZES))
    return {"document": document, "update_mask": by.dice.choice(_CHANGES)}


@sends("DeprecateDocument")
def _deprecate(by: Dice, number: int) -> dict[str, Any]:
    id = by.mine(by.world.documents, "d", lambda document: document.state == "INGESTED")
    return {"id": id, **by.maybe(0.5, reason=f"old {number}"), **by.etag()}


@sends("ReinstateDocument")
def _reinstate(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.documents, "d", lambda d: d.state == "DEPRECATED"), **by.etag()}


@sends("DeleteDocument")
def _delete(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.documents, "d", lambda d: d.state != "DELETED"), **by.etag()}


@sends("UndeleteDocument")
def _undelete(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.documents, "d", lambda d: d.state == "DELETED"), **by.etag()}


@sends("CreateJob")
def _create_job(by: Dice, number: int) -> dict[str, Any]:
    kind = by.dice.choice([_KINDS[0], *_KINDS])
    job: dict[str, Any] = {"kind": kind}
    if kind == "INGESTION" or by.odds(0.6):
        job["document_id"] = by.mine(by.world.documents, "d", lambda d: d.state != "DELETED")
    if by.odds(0.2):
        job |= {"execution": "JOB_EXECUTION_REMOTE", "fallback_delay": LONG}
    job |= by.maybe(0.4, priority=f"JOB_PRIORITY_{by.dice.choice(['LOW', 'HIGH', 'URGENT'])}")
    return {"job": job, **by.for_owner()}


@sends("RetryJob")
def _retry(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.jobs, "j", lambda job: job.state in ("FAILED", "CANCELLED"))}


@sends("GetJob")
def _get_job(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.jobs, "j")}


@sends("ListJobEvents")
def _list_events(by: Dice, number: int) -> dict[str, Any]:
    return {"job_id": by.mine(by.world.jobs, "j"), "page_size": by.dice.choice([1, 2, 1000])}


@sends("ListJobs")
def _list_jobs(by: Dice, number: int) -> dict[str, Any]:
    given = by.listing()
    return {"page_size": given["page_size"], "filter": _jobs(by, given)}


@sends("PurgeJobs")
def _purge(by: Dice, number: int) -> dict[str, Any]:
    end = {"end_time_before": PAST if by.odds(0.1) else "2099-01-01T00:00:00Z"}
    return {**end, "max_jobs": by.dice.choice([1, 2, 5, 1000]), "filter": _jobs(by, by.listing())}


def _jobs(by: Dice, given: dict[str, Any]) -> dict[str, Any]:
    chosen = {"owner_id": given["owner_id"]} if "owner_id" in given else {}
    chosen |= by.maybe(0.5, database_id=by.mine(by.world.databases, "b"))
    chosen |= by.maybe(0.2, document_id=by.mine(by.world.documents, "d"))
    chosen |= by.maybe(0.3, states=[f"JOB_STATE_{state}" for state in by.some(_STATES, 3)])
    return chosen


@sends("CancelJob")
def _cancel(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.jobs, "j", open_jobs), **by.maybe(0.5, reason=f"no {number}"), **by.etag()}


@sends("StartJob")
def _start(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.jobs, "j", is_waiting), "lease_duration": LEASE, **by.etag()}


@sends("RegisterWorker")
def _register(by: Dice, number: int) -> dict[str, Any]:
    worker: dict[str, Any] = {"name": "worker", **by.maybe(0.3, kinds=by.some(_KINDS, 2))}
    worker |= by.maybe(0.3, execution=by.dice.choice(["JOB_EXECUTION_LOCAL", "JOB_EXECUTION_REMOTE"]))
    return {"worker": worker}


@sends("GetWorker")
def _get_worker(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.workers, "w")}


@sends("LeaseJobs")
def _lease(by: Dice, number: int) -> dict[str, Any]:
    worker = by.mine(by.world.workers, "w", lambda worker: worker.owner == by.user)
    return {"worker_id": worker, "max_jobs": by.dice.choice([1, 1, 2, 3]), "lease_duration": LEASE}


def _report(by: Dice, key: str = "id") -> dict[str, Any]:
    """Choose a job, mostly one that runs, and mostly show the token of its lease."""
    label = by.mine(by.world.jobs, "j", lambda job: job.state == "PROCESSING")
    job = by.world.jobs.get(label)
    token = f"{label}#{by.dice.randint(1, 3)}" if job is None or by.odds(0.1) else job.token
    return {key: label, **by.maybe(0.8, lease_token=token)}


def _numbered(by: Dice) -> dict[str, Any]:
    report = _report(by)
    job = by.world.jobs.get(report["id"])
    attempt, number = (1, 0) if job is None else (max(job.attempt, 1), job.report_number)
    if by.odds(0.05):
        attempt += 1
    return {
        **report,
        "attempt": attempt,
        "report_number": max(1, number + by.dice.choice([1, 1, 1, 2, 0, -1])),
    }


@sends("UpdateJobProgress")
def _progress(by: Dice, number: int) -> dict[str, Any]:
    return {**_numbered(by), "percentage": by.dice.randint(0, 100), **by.maybe(0.5, phase=f"p{number}")}


@sends("CompleteJob")
def _complete(by: Dice, number: int) -> dict[str, Any]:
    return {**_numbered(by), "result": {"chunks": by.dice.randint(0, 9), "quality": by.dice.choice([0, 0.5])}}


@sends("FailJob")
def _fail(by: Dice, number: int) -> dict[str, Any]:
    return {**_numbered(by), "error": f"failed {number}"}


@sends("HeartbeatJob", "ReleaseJob")
def _beat(by: Dice, number: int) -> dict[str, Any]:
    report = _report(by, "job_id")
    return {**report, "lease_token": report.get("lease_token") or "j99999999#1"}
