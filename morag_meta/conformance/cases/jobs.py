"""Jobs: their states, what a document follows, deadlines, and figures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.struct_pb2 import Struct

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, read, refused, same
from morag_meta.conformance.waits import becomes, lasting, missing_id
from moragmeta.v1 import documents_pb2
from moragmeta.v1 import jobs_pb2 as pb

AREA = Area("jobs")
_FINAL = (pb.JOB_STATE_FINISHED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)


def _ingestion(bench: Bench, **fields: Any) -> pb.Job:
    return bench.add_job(kind="INGESTION", document_id=bench.add_document().id, **fields)


def _state(bench: Bench, document_id: str) -> int:
    return bench.document(document_id).state


def _retry(bench: Bench, job_id: str) -> pb.Job:
    return bench.mine.jobs.RetryJob(pb.RetryJobRequest(id=job_id))


def _ended(bench: Bench) -> list[pb.Job]:
    """Give a job in each final state."""
    jobs = [bench.running() for _ in range(3)]
    bench.complete(jobs[0], 1)
    bench.fail(jobs[1], 1)
    bench.cancel(jobs[2].id)
    return [bench.job(job.id) for job in jobs]


@AREA.case
def a_job_begins_pending(bench: Bench) -> None:
    """A new job is PENDING, and one that is REMOTE is WAITING_FOR_REMOTE_WORKER; no attempt has begun."""
    job = bench.add_job()
    seen = (job.state, job.attempt, job.last_sequence, job.priority, job.execution, job.max_attempts)
    wanted = (pb.JOB_STATE_PENDING, 0, 1, pb.JOB_PRIORITY_NORMAL, pb.JOB_EXECUTION_LOCAL, 3)
    same("state, attempt, last_sequence, priority, execution, max_attempts", seen, wanted)
    remote = bench.add_job(execution=pb.JOB_EXECUTION_REMOTE)
    same("state of a remote one", remote.state, pb.JOB_STATE_WAITING_FOR_REMOTE_WORKER)


@AREA.case
def an_ingestion_needs_a_document(bench: Bench) -> None:
    """An INGESTION job without a document is INVALID_ARGUMENT, and with a missing one NOT_FOUND."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "job.document_id"):
        bench.add_job(kind="INGESTION")
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="document"):
        bench.add_job(kind="INGESTION", document_id=missing_id())


@AREA.case
def one_ingestion_of_a_document_is_open(bench: Bench) -> None:
    """A second open INGESTION job of a document is ALREADY_EXISTS, naming the first."""
    job = _ingestion(bench)
    with refused("ALREADY_EXISTS", "JOB_ALREADY_OPEN", job_id=job.id):
        bench.add_job(kind="INGESTION", document_id=job.document_id)
    bench.cancel(job.id)
    bench.add_job(kind="INGESTION", document_id=job.document_id)


@AREA.case
def a_start_begins_an_attempt(bench: Bench) -> None:
    """A started job is PROCESSING in attempt 1 with a start_time and a lease that has a token."""
    job = bench.running()
    seen = (job.state, job.attempt, job.HasField("start_time"), job.HasField("lease_expire_time"))
    same(
        "state, attempt, and whether start and lease have times",
        seen,
        (pb.JOB_STATE_PROCESSING, 1, True, True),
    )
    same("characters of the token", len(job.lease_token), 36)
    same("whether GetJob shows a token", bool(bench.job(job.id).lease_token), False)
    with refused("FAILED_PRECONDITION", "INVALID_STATE", resource_type="job", state="PROCESSING"):
        bench.started(job.id)


@AREA.case
def one_of_many_starts_wins(bench: Bench) -> None:
    """Of six starts at once one succeeds, and the others are FAILED_PRECONDITION."""
    job = bench.add_job()

    def attempt(_: int) -> str:
        try:
            bench.started(job.id)
        except grpc.RpcError as error:
            return read(error).reason
        return "OK"

    with ThreadPoolExecutor(6) as pool:
        said = sorted(pool.map(attempt, range(6)))
    same("the answers", said, ["INVALID_STATE"] * 5 + ["OK"])


@AREA.case
def a_document_follows_its_job_to_success(bench: Bench) -> None:
    """A start makes the document INGESTING; success INGESTED with the result's figures and metadata."""
    given = Struct()
    given.update({"kept": 1, "replaced": 1})
    document = bench.add_document(metadata=given)
    job = bench.started(bench.add_job(kind="INGESTION", document_id=document.id).id)
    same("state after the start", _state(bench, document.id), documents_pb2.DOCUMENT_STATE_INGESTING)
    result = pb.JobResult(chunks=12, quality=0.75)
    result.metadata.update({"replaced": 2, "new": 3})
    done = bench.complete(job, 1, result=result).job
    same("job's state and percentage", (done.state, done.percentage), (pb.JOB_STATE_FINISHED, 100))
    after = bench.document(document.id)
    seen = (after.state, after.chunks, after.quality, after.ingested_version, dict(after.metadata))
    wanted = (documents_pb2.DOCUMENT_STATE_INGESTED, 12, 0.75, 1, {"kept": 1, "replaced": 2, "new": 3})
    same("state, chunks, quality, ingested_version, metadata", seen, wanted)


@AREA.case
def a_document_is_as_before_after_failure(bench: Bench) -> None:
    """A failed job makes its document what it was, with the error; the job says REPORTED."""
    job = bench.started(_ingestion(bench).id)
    bench.progress(job, 1, 40)
    failed = bench.fail(job, 2, "no such page").job
    seen = (failed.state, failed.error, failed.failure, failed.percentage, failed.HasField("end_time"))
    wanted = (pb.JOB_STATE_FAILED, "no such page", pb.JOB_FAILURE_REPORTED, 40, True)
    same("state, error, failure, percentage, whether it ended", seen, wanted)
    after = bench.document(job.document_id)
    seen_after = (after.state, after.last_error)
    same("the document", seen_after, (documents_pb2.DOCUMENT_STATE_PENDING, "no such page"))


@AREA.case
def a_cancelled_job_is_over(bench: Bench) -> None:
    """A cancelled job makes its document what it was, and refuses its worker's next report."""
    job = bench.started(_ingestion(bench).id)
    cancelled = bench.cancel(job.id, reason="not wanted")
    same("state and summary", (cancelled.state, cancelled.summary), (pb.JOB_STATE_CANCELLED, "not wanted"))
    same("the document's state", _state(bench, job.document_id), documents_pb2.DOCUMENT_STATE_PENDING)
    with refused("FAILED_PRECONDITION", "JOB_ENDED", state="CANCELLED"):
        bench.progress(job, 1, 10)


@AREA.case
def a_deleted_document_cancels_its_job(bench: Bench) -> None:
    """The deletion of a document cancels its open INGESTION job."""
    job = _ingestion(bench)
    bench.mine.documents.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=job.document_id))
    same("the job's state", bench.job(job.id).state, pb.JOB_STATE_CANCELLED)


@AREA.case
def the_end_is_final(bench: Bench) -> None:
    """A job that has ended can be neither started nor cancelled nor reported on, and stays as it is."""
    for job in _ended(bench):
        name = pb.JobState.Name(job.state).removeprefix("JOB_STATE_")
        for attempt in (
            lambda job=job: bench.started(job.id),
            lambda job=job: bench.cancel(job.id),
            lambda job=job: bench.progress(job, 9, 1),
            lambda job=job: bench.complete(job, 9),
            lambda job=job: bench.fail(job, 9),
        ):
            with refused("FAILED_PRECONDITION", "JOB_ENDED", state=name):
                attempt()
        same(f"the {name} job", bench.job(job.id), job)


@AREA.case
def a_retry_is_a_new_job(bench: Bench) -> None:
    """RetryJob of a FAILED or CANCELLED job makes a PENDING one like it, which names it."""
    finished, *others = _ended(bench)
    for job in others:
        again = _retry(bench, job.id)
        bench.later(f"job {again.id}", lambda again=again: bench.cancel(again.id))  # type: ignore[misc]
        seen = (again.predecessor_id, again.state, again.kind, again.attempt)
        same("predecessor, state, kind, attempt", seen, (job.id, pb.JOB_STATE_PENDING, job.kind, 0))
    for job_id, state in ((finished.id, "FINISHED"), (bench.add_job().id, "PENDING")):
        with refused("FAILED_PRECONDITION", "INVALID_STATE", state=state):
            _retry(bench, job_id)


@AREA.case
def jobs_are_listed_by_filter(bench: Bench) -> None:
    """ListJobs shows the jobs that match every filter, the newest first unless told otherwise."""
    document = bench.add_document()
    first, second = bench.add_job(document_id=document.id), bench.running()
    for filter_, expected in (
        ({}, [second.id, first.id]),
        ({"document_id": document.id}, [first.id]),
        ({"document_types": [bench.kind]}, [first.id]),
        ({"states": [pb.JOB_STATE_PROCESSING]}, [second.id]),
        ({"states": [pb.JOB_STATE_PROCESSING], "document_id": document.id}, []),
    ):
        request = pb.ListJobsRequest(filter=pb.JobFilter(kinds=[bench.kind], **filter_))
        same(f"jobs by {filter_}", [job.id for job in bench.mine.jobs.ListJobs(request).jobs], expected)
    request = pb.ListJobsRequest(filter=pb.JobFilter(kinds=[bench.kind]), order_by="create_time")
    same("the oldest first", bench.mine.jobs.ListJobs(request).jobs[0].id, first.id)


@AREA.case
def each_deadline_fails_its_job(bench: Bench) -> None:
    """A job that passes a deadline is FAILED, and says which of the three it was."""
    second = lasting(1)
    waiting = bench.add_job(deadlines=pb.JobDeadlines(schedule_to_start=second))
    slow = bench.running(deadlines=pb.JobDeadlines(start_to_close=second))
    late = bench.add_job(deadlines=pb.JobDeadlines(schedule_to_close=second))
    for job, failure in (
        (waiting, pb.JOB_FAILURE_NOT_STARTED),
        (slow, pb.JOB_FAILURE_ATTEMPT_TOO_LONG),
        (late, pb.JOB_FAILURE_TOO_LONG),
    ):
        becomes("a job that has ended", lambda job=job: bench.job(job.id).state in _FINAL)  # type: ignore[misc]
        after = bench.job(job.id)
        same("state and failure", (after.state, after.failure), (pb.JOB_STATE_FAILED, failure))
        holds("an error for people", fact=bool(after.error), seen="none")


@AREA.case
def a_remote_job_falls_back(bench: Bench) -> None:
    """A job that no remote worker takes within its fallback_delay becomes PENDING."""
    job = bench.add_job(execution=pb.JOB_EXECUTION_REMOTE, fallback_delay=lasting(1))
    becomes("a PENDING job", lambda: bench.job(job.id).state == pb.JOB_STATE_PENDING)


@AREA.case
def figures_count_jobs(bench: Bench) -> None:
    """GetJobStats counts jobs by state and kind, and the success rate over FINISHED and FAILED ones."""
    _ended(bench)
    bench.add_job()
    request = pb.GetJobStatsRequest(filter=pb.JobFilter(kinds=[bench.kind]))
    stats = bench.mine.jobs.GetJobStats(request)
    states = {each.key.removeprefix("JOB_STATE_"): each.count for each in stats.by_state}
    same("by state", states, dict.fromkeys(("PENDING", "FINISHED", "FAILED", "CANCELLED"), 1))
    same("by kind", [(each.key, each.count) for each in stats.by_kind], [(bench.kind, 4)])
    same("total and success rate", (stats.total, stats.success_rate), (4, 0.5))
    holds("the age of the open job", fact=stats.HasField("oldest_open_age"), seen="none")


@AREA.add(alone=True)
def a_purge_leaves_open_jobs(bench: Bench) -> None:
    """PurgeJobs removes the jobs that have ended, with their events, and leaves open ones."""
    ended, pending = _ended(bench), bench.add_job()
    answer = bench.purge(pending)
    same("purged jobs, and whether there are more", (answer.purged_jobs, answer.more), (len(ended), False))
    same("the open job's state", bench.job(pending.id).state, pb.JOB_STATE_PENDING)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="job"):
        bench.job(ended[0].id)
