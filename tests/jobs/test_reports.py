"""Reports and repeated calls over the wire: whatever is sent again happens once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from moragmeta.v1 import jobs_pb2 as pb
from tests.jobs.conftest import Work
from tests.refusals import Refusal, read_details, refused


def test_reports_may_be_sent_again_in_any_order(work: Work) -> None:
    """A repeated report is REPEATED, an older one IGNORED, and neither changes the job or adds an event."""
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    work.progress(job.id, 1, 10)
    newest = work.progress(job.id, 5, 50).job
    again, older = work.progress(job.id, 5, 50), work.progress(job.id, 3, 90)

    assert (again.outcome, older.outcome) == (pb.REPORT_OUTCOME_REPEATED, pb.REPORT_OUTCOME_IGNORED)
    assert again.job == older.job == newest
    done = work.complete(job.id, 6)
    assert work.complete(job.id, 6).outcome == pb.REPORT_OUTCOME_REPEATED
    assert work.job(job.id) == done.job
    with refused("FAILED_PRECONDITION", "JOB_ENDED"):
        work.fail(job.id, 7)


def test_the_percentage_never_falls_within_an_attempt(work: Work) -> None:
    """A lower percentage in a newer report keeps what is there, and takes the phase."""
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    work.progress(job.id, 1, 60)
    lower = work.progress(job.id, 2, 20, phase="again").job

    assert (lower.percentage, lower.phase) == (60, "again")


def test_reports_of_another_attempt_are_refused(work: Work) -> None:
    """A report names the attempt that StartJob answered, or is STALE_ATTEMPT with the present one."""
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    with refused("FAILED_PRECONDITION", "STALE_ATTEMPT") as refusal:
        work.progress(job.id, 1, attempt=2)

    assert refusal.metadata == {"attempt": "2", "current_attempt": "1"}


@pytest.mark.parametrize("verb", ["CreateJob", "StartJob", "CompleteJob", "FailJob", "CancelJob", "RetryJob"])
def test_a_repeated_request_id_does_nothing_again(work: Work, verb: str) -> None:
    """Every create and change of state answers a repeat with the job as it is, and says so in trailers."""
    request_id = str(uuid.uuid4())
    job = work.add_job(kind="REINDEX")
    if verb in ("CompleteJob", "FailJob"):
        work.start(job.id)
    if verb == "RetryJob":
        work.cancel(job.id)
    requests: dict[str, Any] = {
        "CreateJob": pb.CreateJobRequest(job=pb.Job(kind="REINDEX"), request_id=request_id),
        "StartJob": pb.StartJobRequest(id=job.id, request_id=request_id),
        "CompleteJob": pb.CompleteJobRequest(id=job.id, attempt=1, report_number=1, request_id=request_id),
        "FailJob": pb.FailJobRequest(
            id=job.id, attempt=1, report_number=1, error="broken", request_id=request_id
        ),
        "CancelJob": pb.CancelJobRequest(id=job.id, request_id=request_id),
        "RetryJob": pb.RetryJobRequest(id=job.id, request_id=request_id),
    }
    call = getattr(work.jobs, verb)
    first, first_call = call.with_call(requests[verb])
    again, again_call = call.with_call(requests[verb])

    assert getattr(again, "job", again) == getattr(first, "job", first)
    assert dict(first_call.trailing_metadata()).get("morag-replayed") is None
    assert dict(again_call.trailing_metadata())["morag-replayed"] == "true"


@pytest.mark.parametrize("end", ["complete", "fail"])
def test_of_reports_sent_at_once_one_is_applied_and_the_others_are_repeats(work: Work, end: str) -> None:
    """A worker that times out and sends its last report again, while the first one runs, sees success."""
    for _ in range(4):
        job = work.add_job()
        work.start(job.id)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _, id_=job.id: getattr(work, end)(id_, 1).outcome, range(4)))

        assert sorted(answers) == [pb.REPORT_OUTCOME_APPLIED, *[pb.REPORT_OUTCOME_REPEATED] * 3]


def test_a_report_beside_a_cancellation_says_that_the_job_ended(work: Work) -> None:
    """Of CompleteJob and CancelJob at once one wins, and the other is told JOB_ENDED."""
    for _ in range(6):
        job = work.add_job()
        work.start(job.id)

        def told(call: Callable[[], Any]) -> str:
            refusal = Refusal()
            try:
                call()
            except grpc.RpcError as error:
                read_details(refusal, error)
            return refusal.reason

        with ThreadPoolExecutor(2) as pool:
            calls = [lambda id_=job.id: work.complete(id_, 1), lambda id_=job.id: work.cancel(id_)]
            answers = list(pool.map(told, calls))

        assert sorted(answers) == ["", "JOB_ENDED"]
