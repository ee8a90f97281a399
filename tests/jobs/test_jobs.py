"""Jobs over the wire: their states, their reports, and what follows for their documents."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from moragmeta.v1 import documents_pb2 as docs
from moragmeta.v1 import jobs_pb2 as pb
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.service import Service


def test_job_without_document_runs_to_its_end(work: Work) -> None:
    """A job of a free kind goes from PENDING over PROCESSING to FINISHED, with true times and result."""
    job = work.add_job(kind="REINDEX", priority=pb.JOB_PRIORITY_HIGH, parameters={"depth": 3})
    assert (job.state, job.last_sequence, job.attempt) == (pb.JOB_STATE_PENDING, 1, 0)
    assert (job.priority, job.execution) == (pb.JOB_PRIORITY_HIGH, pb.JOB_EXECUTION_LOCAL)
    assert job.parameters["depth"] == 3
    assert not job.HasField("start_time")
    started = work.start(job.id)
    assert (started.state, started.attempt) == (pb.JOB_STATE_PROCESSING, 1)
    assert not started.HasField("end_time")
    progress = work.progress(job.id, 1, 40, phase="reading", summary="page 4")
    assert (progress.outcome, progress.job.percentage) == (pb.REPORT_OUTCOME_APPLIED, 40)
    done = work.complete(job.id, 2, chunks=3).job
    times = [time.ToDatetime() for time in (done.create_time, done.start_time, done.end_time)]

    assert (done.state, done.percentage, done.result.chunks) == (pb.JOB_STATE_FINISHED, 100, 3)
    assert (done.phase, done.summary) == ("reading", "page 4")
    assert times == sorted(times)
    assert work.job(job.id) == done


def test_success_ingests_the_document(work: Work) -> None:
    """The start makes the document INGESTING, success INGESTED with chunks, quality and metadata."""
    job = work.add_job()
    assert work.document(job.document_id).state == docs.DOCUMENT_STATE_PENDING
    work.start(job.id)
    assert work.document(job.document_id).state == docs.DOCUMENT_STATE_INGESTING
    work.complete(job.id, 1, chunks=7, quality=0.5, metadata={"language": "en"})
    document = work.document(job.document_id)

    assert document.state == docs.DOCUMENT_STATE_INGESTED
    assert (document.chunks, document.quality, document.metadata["language"]) == (7, 0.5, "en")
    assert document.ingested_version == document.version == 1


def test_a_failed_repetition_takes_no_good_document_away(work: Work) -> None:
    """When the second ingestion fails the document is INGESTED as before, and says why it failed."""
    document_id = work.add_document()
    first = work.add_job(document_id)
    work.start(first.id)
    work.complete(first.id, 1, chunks=7)
    second = work.add_job(document_id)
    work.start(second.id)
    assert work.document(document_id).state == docs.DOCUMENT_STATE_INGESTING
    failed = work.fail(second.id, 1, "no space").job
    document = work.document(document_id)

    assert (failed.state, failed.error) == (pb.JOB_STATE_FAILED, "no space")
    assert (document.state, document.chunks) == (docs.DOCUMENT_STATE_INGESTED, 7)
    assert document.last_error == "no space"


@pytest.mark.parametrize("started", [False, True])
def test_cancelling_returns_the_document_to_what_it_was(work: Work, started: bool) -> None:
    """A cancelled job leaves its document as before, whether it ran or waited."""
    job = work.add_job()
    if started:
        work.start(job.id)
    cancelled = work.cancel(job.id, reason="not needed")

    assert (cancelled.state, cancelled.summary) == (pb.JOB_STATE_CANCELLED, "not needed")
    assert work.document(job.document_id).state == docs.DOCUMENT_STATE_PENDING
    with refused("FAILED_PRECONDITION", "JOB_ENDED"):
        work.progress(job.id, 1) if started else work.start(job.id)


def test_deleting_a_document_cancels_its_open_job(work: Work) -> None:
    """DeleteDocument ends the open job in the same transaction, and the worker's next report says so."""
    job = work.add_job()
    work.start(job.id)
    work.documents.DeleteDocument(docs.DeleteDocumentRequest(id=job.document_id))

    assert work.job(job.id).state == pb.JOB_STATE_CANCELLED
    with refused("FAILED_PRECONDITION", "JOB_ENDED"):
        work.complete(job.id, 1)
    with refused("FAILED_PRECONDITION", "INVALID_STATE"):
        work.add_job(job.document_id)


def test_one_ingestion_of_a_document_is_open_at_most(work: Work) -> None:
    """A second INGESTION job is refused with the id of the open one, and another kind is not."""
    job = work.add_job()
    with refused("ALREADY_EXISTS", "JOB_ALREADY_OPEN") as refusal:
        work.add_job(job.document_id)
    assert refusal.metadata["job_id"] == job.id
    work.add_job(job.document_id, kind="SUMMARY")
    work.cancel(job.id)

    assert work.add_job(job.document_id).state == pb.JOB_STATE_PENDING


def test_of_many_starters_one_succeeds(work: Work) -> None:
    """Of eight StartJob calls at once one gets the job, and the others are told that it runs."""
    job = work.add_job()

    def start(_: int) -> Any:
        try:
            return work.start(job.id).attempt
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(start, range(8)))

    assert answers.count(1) == 1
    assert answers.count(grpc.StatusCode.FAILED_PRECONDITION) == 7


def test_of_many_creators_one_opens_an_ingestion(work: Work) -> None:
    """Of eight CreateJob calls at once for a document one makes the job."""
    document_id = work.add_document()

    def create(_: int) -> Any:
        try:
            return work.add_job(document_id).id
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(create, range(8)))

    assert answers.count(grpc.StatusCode.ALREADY_EXISTS) == 7


def test_a_retry_is_a_new_job_that_names_the_old_one(work: Work) -> None:
    """RetryJob repeats a FAILED job with its document and parameters; an open or FINISHED one is refused."""
    job = work.add_job(parameters={"ocr": True}, execution=pb.JOB_EXECUTION_REMOTE)
    assert job.state == pb.JOB_STATE_WAITING_FOR_REMOTE_WORKER
    with refused("FAILED_PRECONDITION", "INVALID_STATE"):
        work.jobs.RetryJob(pb.RetryJobRequest(id=job.id))
    work.start(job.id)
    work.fail(job.id, 1)
    retry = work.jobs.RetryJob(pb.RetryJobRequest(id=job.id))

    assert retry.predecessor_id == job.id != retry.id
    assert (retry.document_id, retry.parameters["ocr"]) == (job.document_id, True)
    assert retry.state == pb.JOB_STATE_WAITING_FOR_REMOTE_WORKER
    assert work.job(job.id).state == pb.JOB_STATE_FAILED


def test_ingestion_needs_a_document(work: Work) -> None:
    """An INGESTION job without a document is refused by its field, a foreign document is not found."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "job.document_id"):
        work.jobs.CreateJob(pb.CreateJobRequest(job=pb.Job(kind="INGESTION")))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        work.add_job(str(uuid.uuid4()))

    assert refusal.metadata["resource_type"] == "document"


def test_etag_of_another_state_aborts(work: Work) -> None:
    """StartJob and CancelJob with an old etag are ABORTED, and the job stays as it is."""
    job = work.add_job(kind="REINDEX")
    started = work.start(job.id, etag=job.etag)
    with refused("ABORTED", "ETAG_MISMATCH"):
        work.cancel(job.id, etag=job.etag)

    token, started.lease_token = started.lease_token, ""
    assert len(token) == 36
    assert work.job(job.id) == started
    assert work.cancel(job.id, etag=started.etag).state == pb.JOB_STATE_CANCELLED


def test_lists_filter_order_and_page(work: Work) -> None:
    """ListJobs gives each matching job once, in the order asked for, however small the pages."""
    document_id = work.add_document()
    made = [work.add_job(kind=f"KIND{number % 3}", document_id=document_id).id for number in range(9)]
    work.start(made[4])

    def listed(page_size: int = 2, order_by: str = "", **chosen: Any) -> list[str]:
        ids, token = [], ""
        while True:
            request = pb.ListJobsRequest(
                page_size=page_size, page_token=token, order_by=order_by, filter=pb.JobFilter(**chosen)
            )
            page = work.jobs.ListJobs(request)
            ids += [job.id for job in page.jobs]
            token = page.next_page_token
            if not token:
                return ids

    assert listed() == made[::-1]
    assert listed(order_by="create_time") == made
    assert listed(order_by="update_time desc")[0] == made[4]
    assert listed(kinds=["KIND1"]) == [made[7], made[4], made[1]]
    assert listed(states=[pb.JOB_STATE_PROCESSING]) == [made[4]]
    assert listed(document_id=document_id, document_types=["txt"], kinds=["KIND0", "KIND2"]) == [
        made[number] for number in (8, 6, 5, 3, 2, 0)
    ]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "order_by"):
        listed(order_by="kind")


def test_events_are_listed_in_pages(work: Work) -> None:
    """ListJobEvents pages through the numbers without a gap."""
    job = work.add_job(kind="REINDEX")
    work.start(job.id)
    for number in range(1, 6):
        work.progress(job.id, number, number)
    first = work.jobs.ListJobEvents(pb.ListJobEventsRequest(job_id=job.id, page_size=4))
    rest = work.jobs.ListJobEvents(
        pb.ListJobEventsRequest(job_id=job.id, page_size=4, page_token=first.next_page_token)
    )

    assert [event.sequence for event in (*first.events, *rest.events)] == [1, 2, 3, 4, 5, 6, 7]
    assert not rest.next_page_token


def test_jobs_of_others_do_not_exist(service: Service, work: Work) -> None:
    """Every call on another user's job answers NOT_FOUND in the same words as for one that is missing."""
    job = work.add_job(kind="REINDEX")
    stranger = Work(service.new_user())
    calls: list[Callable[[str], Any]] = [
        stranger.job,
        stranger.start,
        lambda id_: stranger.progress(id_, 1),
        lambda id_: stranger.complete(id_, 1),
        lambda id_: stranger.fail(id_, 1),
        stranger.cancel,
        lambda id_: stranger.jobs.RetryJob(pb.RetryJobRequest(id=id_)),
        lambda id_: stranger.jobs.ListJobEvents(pb.ListJobEventsRequest(job_id=id_)),
        stranger.events,
    ]
    for call in calls:
        missing = str(uuid.uuid4())
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as foreign:
            call(job.id)
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as absent:
            call(missing)
        assert foreign.message.replace(job.id, missing) == absent.message

    assert work.job(job.id) == job


def test_an_admin_sees_and_makes_jobs_of_others(service: Service, work: Work) -> None:
    """An ADMIN gets any job, lists by owner_id, everybody's with '-', and makes them for others."""
    admin = service.new_user("ADMIN")
    job = work.add_job(kind="REINDEX")
    made = admin.channel.jobs.CreateJob(pb.CreateJobRequest(job=pb.Job(kind="ADMIN"), owner_id=work.user.id))

    def listed(owner_id: str) -> list[str]:
        request = pb.ListJobsRequest(filter=pb.JobFilter(owner_id=owner_id), page_size=2)
        return [found.id for found in admin.channel.jobs.ListJobs(request).jobs]

    assert admin.channel.jobs.GetJob(pb.GetJobRequest(id=job.id)) == job
    assert made.owner_id == work.user.id
    assert listed(work.user.id) == [made.id, job.id]
    assert listed("-") == [made.id, job.id]
    assert listed("") == []
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        work.jobs.ListJobs(pb.ListJobsRequest(filter=pb.JobFilter(owner_id="-")))
