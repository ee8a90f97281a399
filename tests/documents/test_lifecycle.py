"""The states of a document over the wire: its ingestion job, deprecation, deletion."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from moragmeta.v1 import databases_pb2, jobs_pb2
from moragmeta.v1 import documents_pb2 as pb
from tests.documents.wire import (
    CREATED,
    complete,
    count_of,
    fail,
    get,
    ingested,
    job,
    new_database,
    new_document,
    new_job,
    start_ingestion,
    struct,
    upload,
)
from tests.refusals import refused
from tests.service import Service, User


def deprecate(user: User, id: str, reason: str = "old", **more: str) -> pb.Document:
    """Deprecate a document."""
    request = pb.DeprecateDocumentRequest(id=id, reason=reason, **more)
    return user.channel.documents.DeprecateDocument(request)


def reinstate(user: User, id: str, **more: str) -> pb.Document:
    """Reinstate a document."""
    return user.channel.documents.ReinstateDocument(pb.ReinstateDocumentRequest(id=id, **more))


def delete(user: User, id: str, **more: str) -> pb.Document:
    """Delete a document."""
    return user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=id, **more))


def undelete(user: User, id: str, **more: str) -> pb.Document:
    """Undelete a document."""
    return user.channel.documents.UndeleteDocument(pb.UndeleteDocumentRequest(id=id, **more))


VERBS: dict[str, Callable[..., pb.Document]] = {
    "deprecate": deprecate,
    "reinstate": reinstate,
    "delete": delete,
    "undelete": undelete,
}


def in_state(user: User, state: str, **fields: Any) -> pb.Document:
    """A document that went to a state as documents go there."""
    if state in ("INGESTED", "DEPRECATED"):
        document = ingested(user, **fields)
        return document if state == "INGESTED" else deprecate(user, document.id)
    document = new_document(user, **fields)
    if state == "INGESTING":
        start_ingestion(user, document.id)
    if state == "DELETED":
        delete(user, document.id)
    return get(user, document.id)


def state_of(user: User, id: str) -> str:
    """The name of the document's state."""
    return pb.DocumentState.Name(get(user, id).state).removeprefix("DOCUMENT_STATE_")


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


def test_deprecation_has_a_reason_and_a_time(user: User) -> None:
    """Deprecating stores reason and time, reinstating clears both; an empty reason is none."""
    document = ingested(user)
    deprecated = deprecate(user, document.id, "superseded by b.pdf")
    assert deprecated.state == pb.DOCUMENT_STATE_DEPRECATED
    assert deprecated.deprecation_reason == "superseded by b.pdf"
    assert deprecated.deprecate_time == deprecated.update_time
    reinstated = reinstate(user, document.id)
    assert reinstated.state == pb.DOCUMENT_STATE_INGESTED
    assert not reinstated.HasField("deprecation_reason")
    assert not reinstated.HasField("deprecate_time")
    assert not deprecate(user, document.id, "").HasField("deprecation_reason")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "reason"):
        deprecate(user, document.id, "x" * 501)


STATES = ["PENDING", "INGESTING", "INGESTED", "DEPRECATED", "DELETED"]
ALLOWED = {
    ("INGESTED", "deprecate"),
    ("DEPRECATED", "reinstate"),
    ("DELETED", "undelete"),
    *((state, "delete") for state in STATES[:4]),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", STATES)
def test_a_verb_is_refused_where_the_table_lacks_it(user: User, state: str, verb: str) -> None:
    """A verb outside the table is refused with the state, and changes nothing."""
    document = in_state(user, state)
    if (state, verb) in ALLOWED:
        assert VERBS[verb](user, document.id).etag != document.etag
        return
    if verb == "undelete":
        with refused("ALREADY_EXISTS", "NOT_DELETED") as refusal:
            undelete(user, document.id)
        assert refusal.metadata == {"resource_id": document.id}
    else:
        with refused("FAILED_PRECONDITION", "INVALID_STATE") as refusal:
            VERBS[verb](user, document.id)
        assert refusal.metadata == {"resource_type": "document", "state": state}
    assert get(user, document.id) == document


@pytest.mark.parametrize(("state", "back"), [(s, "PENDING" if s == "INGESTING" else s) for s in STATES[:4]])
def test_an_undeleted_document_is_what_it_was(user: User, state: str, back: str) -> None:
    """Deletion keeps everything but sets its time; undelete clears it and lands where the document was."""
    database_id = new_database(user)
    document = in_state(user, state, database_id=database_id, external_id="e", metadata=struct(a=1))
    deleted = delete(user, document.id)
    assert deleted.state == pb.DOCUMENT_STATE_DELETED
    assert deleted.delete_time == deleted.update_time
    assert get(user, document.id) == deleted
    assert count_of(user, database_id) == 0
    undeleted = undelete(user, document.id)
    assert count_of(user, database_id) == 1
    assert state_of(user, document.id) == back
    for each in (document, undeleted):
        each.ClearField("update_time")
        each.ClearField("etag")
        each.ClearField("state")
    assert undeleted == document


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


@pytest.mark.parametrize("field", ["name", "external_id", "content_hash"])
def test_a_taken_identity_blocks_the_way_back(user: User, field: str) -> None:
    """When a live document took an identity, undelete is refused and names it, until it is free again."""
    fields = {"name": "a.pdf", "external_id": "e", "content_hash": "h"}
    first = upload(user, **fields).document
    delete(user, first.id)
    second = upload(user, **{"name": "b.pdf", field: fields[field]})
    assert second.outcome == CREATED
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        undelete(user, first.id)
    assert refusal.metadata == {
        "resource_type": "document",
        "field": field,
        "existing_id": second.document.id,
    }
    delete(user, second.document.id)
    assert undelete(user, first.id).state == pb.DOCUMENT_STATE_PENDING


def test_a_forced_deletion_of_the_database_detaches_its_documents(user: User) -> None:
    """Live and deleted documents are left in no database, and deleted ones come back there."""
    database_id = new_database(user)
    live, dead = (new_document(user, database_id=database_id) for _ in range(2))
    delete(user, dead.id)
    request = databases_pb2.DeleteDatabaseRequest(id=database_id)
    with refused("FAILED_PRECONDITION", "HAS_CHILDREN"):
        user.channel.databases.DeleteDatabase(request)
    request.force = True
    assert user.channel.databases.DeleteDatabase(request).detached_documents == 1
    assert not get(user, live.id).HasField("database_id")
    assert get(user, live.id).etag != live.etag
    assert not undelete(user, dead.id).HasField("database_id")
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        upload(user, database_id=database_id)


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_check_the_etag(user: User, verb: str) -> None:
    """A verb with an old etag is ABORTED and changes nothing; with the present one it works."""
    state = next(state for state, allowed in ALLOWED if allowed == verb)
    document = in_state(user, state)
    with refused("ABORTED", "ETAG_MISMATCH"):
        VERBS[verb](user, document.id, etag='"0"')
    assert get(user, document.id) == document
    assert VERBS[verb](user, document.id, etag=document.etag).etag != document.etag


@pytest.mark.parametrize("verb", VERBS)
def test_a_repeated_verb_is_done_once(user: User, verb: str) -> None:
    """A repeat with the same request id answers the document as it is; with another body it is refused."""
    state = next(state for state, allowed in ALLOWED if allowed == verb)
    document = in_state(user, state)
    id = str(uuid.uuid4())
    first = VERBS[verb](user, document.id, request_id=id)
    assert VERBS[verb](user, document.id, request_id=id) == first
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        VERBS[verb](user, new_document(user).id, request_id=id)


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_reach_only_ones_own(service: Service, user: User, verb: str) -> None:
    """Somebody else's document and one that does not exist are NOT_FOUND alike; an ADMIN reaches it."""
    state = next(state for state, allowed in ALLOWED if allowed == verb)
    document = in_state(user, state)
    stranger = service.new_user()
    for id in (document.id, str(uuid.uuid4())):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            VERBS[verb](stranger, id)
        assert refusal.metadata == {"resource_type": "document", "resource_id": id}
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        VERBS[verb](service.new_user("VIEWER"), document.id)
    for bad in ("", "x", document.id.upper(), "a\0"):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "id"):
            VERBS[verb](user, bad)
    assert VERBS[verb](service.admin, document.id).owner_id == user.id


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
