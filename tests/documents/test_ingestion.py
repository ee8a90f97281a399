"""How a document follows its ingestion job, over the wire."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from moragmeta.v1 import documents_pb2 as pb
from moragmeta.v1 import jobs_pb2
from tests.documents.states import delete, in_state, state_of, undelete
from tests.documents.wire import (
    complete,
    count_of,
    fail,
    get,
    job,
    new_database,
    new_document,
    new_job,
    start_ingestion,
    struct,
)
from tests.refusals import refused
from tests.service import User


@pytest.mark.parametrize("state", ["PENDING", "INGESTED", "DEPRECATED"])
def test_a_successful_job_ingests_its_document(user: User, state: str) -> None:
    """Start makes it INGESTING, success INGESTED with the job's result, whatever it was before."""
    document = in_state(user, state, metadata=struct(author="x", pages=1))
    job_id = start_ingestion(user, document.id)
    assert state_of(user, document.id) == "INGESTING"
    complete(user, job_id, chunks=42, quality=0.875, pages=3, lang="en")
    after = get(user, document.id)
    assert after.state == pb.DOCUMENT_STATE_INGESTED
    assert (after.chunks, after.quality, after.ingested_version) == (42, 0.875, 1)
    assert after.metadata == struct(author="x", pages=3, lang="en")
    assert after.ingest_time == job(user, job_id).end_time
    assert not after.HasField("deprecate_time")
    assert after.etag != document.etag


@pytest.mark.parametrize("end", ["failure", "cancellation"])
@pytest.mark.parametrize("state", ["PENDING", "INGESTED", "DEPRECATED"])
def test_an_ingestion_that_does_not_succeed_takes_nothing_away(user: User, state: str, end: str) -> None:
    """Failure and cancellation lead back to what the document was; a failure leaves its error."""
    before = in_state(user, state, metadata=struct(a=1))
    job_id = start_ingestion(user, before.id)
    if end == "failure":
        fail(user, job_id, "the file is empty")
        before.last_error = "the file is empty"
    else:
        user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job_id))
    after = get(user, before.id)
    for document in (before, after):
        document.ClearField("update_time")
        document.ClearField("etag")
    assert after == before


def test_success_clears_the_last_error(user: User) -> None:
    """An error stands until an ingestion succeeds."""
    document = new_document(user)
    fail(user, start_ingestion(user, document.id), "x" * 2000)
    assert get(user, document.id).last_error == "x" * 2000
    job_id = start_ingestion(user, document.id)
    assert get(user, document.id).last_error == "x" * 2000
    complete(user, job_id)
    assert not get(user, document.id).HasField("last_error")


def test_a_job_that_never_started_leaves_its_document_alone(user: User) -> None:
    """Cancelling a job that waits changes nothing about its document."""
    document = new_document(user)
    user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=new_job(user, document.id)))
    assert get(user, document.id) == document


def test_a_result_that_does_not_fit_leaves_the_job_running(user: User) -> None:
    """A result that would make the metadata too large is refused, and nothing has ended."""
    document = new_document(user, metadata=struct(a="x" * 40_000))
    job_id = start_ingestion(user, document.id)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "result.metadata"):
        complete(user, job_id, b="x" * 40_000)
    assert state_of(user, document.id) == "INGESTING"
    complete(user, job_id, b="x" * 100)
    assert state_of(user, document.id) == "INGESTED"


@pytest.mark.parametrize("started", [False, True])
def test_deleting_a_document_cancels_its_open_job(user: User, started: bool) -> None:
    """The open job is CANCELLED with the deletion, and its worker is told so."""
    document = new_document(user)
    job_id = start_ingestion(user, document.id) if started else new_job(user, document.id)
    delete(user, document.id)
    assert job(user, job_id).state == jobs_pb2.JOB_STATE_CANCELLED
    assert job(user, job_id).summary == "the document was deleted"
    with refused("FAILED_PRECONDITION", "JOB_ENDED" if started else ""):
        complete(user, job_id)
    with refused("FAILED_PRECONDITION", "INVALID_STATE"):
        new_job(user, document.id)
    undelete(user, document.id)
    complete(user, start_ingestion(user, document.id))


def test_of_many_deletions_at_once_one_is_done(user: User) -> None:
    """Sixteen deletions and starts at once leave one consistent document, counted and with no open job."""
    database_id = new_database(user)
    document = new_document(user, database_id=database_id)
    job_id = new_job(user, document.id)

    def run(number: int) -> Any:
        try:
            if number % 2:
                return delete(user, document.id).state
            return user.channel.jobs.StartJob(jobs_pb2.StartJobRequest(id=job_id)).state
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(run, range(16)))
    assert answers[pb.DOCUMENT_STATE_DELETED] == 1
    assert set(answers) <= {
        pb.DOCUMENT_STATE_DELETED,
        jobs_pb2.JOB_STATE_PROCESSING,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
    assert state_of(user, document.id) == "DELETED"
    assert job(user, job_id).state == jobs_pb2.JOB_STATE_CANCELLED
    assert count_of(user, database_id) == 0
