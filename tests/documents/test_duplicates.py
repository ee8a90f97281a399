"""What a second upload of a document does, over the wire."""

from __future__ import annotations

from typing import Any

import pytest

from moragmeta.v1 import documents_pb2 as pb
from moragmeta.v1 import jobs_pb2
from tests.documents.wire import (
    CREATED,
    EXISTING,
    IDENTITIES,
    INSIDE,
    NEW_VERSION,
    complete,
    count_of,
    get,
    ingested,
    job,
    new_database,
    new_document,
    new_job,
    scope,
    start_ingestion,
    struct,
    upload,
)
from tests.refusals import refused
from tests.service import User


@INSIDE
@pytest.mark.parametrize("field", IDENTITIES)
def test_a_duplicate_is_rejected_unless_said_otherwise(user: User, field: str, inside: bool) -> None:
    """Each identity alone makes a duplicate; the refusal names the field and the document that is there."""
    where = scope(user, inside=inside)
    first = upload(user, **{**where, "name": "a.pdf", "external_id": "e", "content_hash": "h"}).document
    same = {"name": "a.pdf", "external_id": "e", "content_hash": "h"}[field]
    for choice in (pb.ON_DUPLICATE_UNSPECIFIED, pb.ON_DUPLICATE_REJECT):
        with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
            upload(user, choice, **{**where, "name": "b.pdf", field: same})
        assert refusal.metadata == {
            "resource_type": "document",
            "field": field,
            "existing_id": first.id,
        }


def test_identities_are_kept_apart_by_database_and_owner(user: User, service: Any) -> None:
    """The same document may stand once in each database, once in none, and once with each owner."""
    fields = {"name": "a.pdf", "external_id": "e", "content_hash": "h"}
    scopes = [{}, {"database_id": new_database(user)}, {"database_id": new_database(user)}]
    ids = {upload(user, **fields, **where).document.id for where in scopes}
    ids.add(upload(service.new_user(), **fields).document.id)
    assert len(ids) == 4


def test_the_stronger_identity_decides(user: User) -> None:
    """When all identities are one document's, external_id is the field that is named."""
    upload(user, external_id="e", content_hash="h")
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        upload(user, content_hash="h")
    assert refusal.metadata["field"] == "content_hash"
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        upload(user, external_id="e", content_hash="h")
    assert refusal.metadata["field"] == "external_id"


@pytest.mark.parametrize("choice", [pb.ON_DUPLICATE_RETURN_EXISTING, pb.ON_DUPLICATE_NEW_VERSION])
def test_two_documents_at_once_are_no_duplicate(user: User, choice: pb.OnDuplicate.ValueType) -> None:
    """An upload whose identities belong to two documents is refused, and changes neither."""
    one, two = new_document(user, external_id="e"), new_document(user, content_hash="h")
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        upload(user, choice, name="new.pdf", external_id="e", content_hash="h")
    assert refusal.metadata["field"] == "content_hash"
    assert refusal.metadata["existing_id"] == two.id
    assert [get(user, one.id), get(user, two.id)] == [one, two]


@INSIDE
@pytest.mark.parametrize("field", IDENTITIES)
def test_the_existing_document_is_returned(user: User, field: str, inside: bool) -> None:
    """RETURN_EXISTING answers the document as it is, and changes nothing."""
    where = scope(user, inside=inside)
    fields = {"name": "a.pdf", "external_id": "e", "content_hash": "h"}
    first = upload(user, pb.ON_DUPLICATE_RETURN_EXISTING, **where, **fields)
    assert first.outcome == CREATED
    again = {**where, "name": "b.pdf", field: fields[field], "source": "elsewhere", "type": "md"}
    second = upload(user, pb.ON_DUPLICATE_RETURN_EXISTING, **again)
    assert second.outcome == EXISTING
    assert second.document == first.document == get(user, first.document.id)
    assert not inside or count_of(user, where["database_id"]) == 1


@INSIDE
def test_a_new_version_replaces_what_is_said_of_the_content(user: User, inside: bool) -> None:
    """NEW_VERSION keeps id and ingested version, counts up, and has the new content wait for ingestion."""
    where = scope(user, inside=inside)
    old = ingested(
        user,
        **where,
        name="a.pdf",
        external_id="e",
        content_hash="h1",
        source="old",
        size_bytes=1,
        metadata=struct(old=True),
    )
    answer = upload(
        user,
        pb.ON_DUPLICATE_NEW_VERSION,
        **where,
        name="b.pdf",
        type="md",
        external_id="e",
        content_hash="h2",
        size_bytes=2,
        metadata=struct(new=True),
    )
    new = answer.document
    assert answer.outcome == NEW_VERSION
    assert (new.id, new.version, new.ingested_version) == (old.id, 2, 1)
    assert new.state == pb.DOCUMENT_STATE_PENDING
    assert (new.name, new.type, new.content_hash, new.size_bytes) == ("b.pdf", "md", "h2", 2)
    assert not new.HasField("source")
    assert new.metadata == struct(new=True)
    assert (new.chunks, new.quality, new.ingest_time) == (old.chunks, old.quality, old.ingest_time)
    assert new.create_time == old.create_time
    assert new.etag != old.etag
    assert get(user, old.id) == new
    assert not inside or count_of(user, where["database_id"]) == 1
    complete(user, start_ingestion(user, old.id), chunks=9)
    assert (get(user, old.id).ingested_version, get(user, old.id).chunks) == (2, 9)


def test_a_new_version_without_a_hash_forgets_the_old_one(user: User) -> None:
    """The old hash is not the new content's: content with the old hash is then another document."""
    first = upload(user, content_hash="h1").document
    second = upload(user, pb.ON_DUPLICATE_NEW_VERSION, name="a.pdf").document
    assert (second.id, second.version) == (first.id, 2)
    assert not second.HasField("content_hash")
    assert upload(user, name="b.pdf", content_hash="h1").outcome == CREATED


def test_an_external_id_is_kept_or_taken_over(user: User) -> None:
    """A new version without an external id keeps the old one, with one takes it."""
    first = upload(user, external_id="e1").document
    assert upload(user, pb.ON_DUPLICATE_NEW_VERSION).document.external_id == "e1"
    moved = upload(user, pb.ON_DUPLICATE_NEW_VERSION, external_id="e2").document
    assert (moved.id, moved.external_id, moved.version) == (first.id, "e2", 3)


def test_equal_content_is_no_new_version(user: User) -> None:
    """NEW_VERSION with the hash that the document has answers it unchanged."""
    first = upload(user, content_hash="h").document
    again = upload(user, pb.ON_DUPLICATE_NEW_VERSION, content_hash="h", metadata=struct(a=1))
    assert (again.outcome, again.document) == (EXISTING, first)


@pytest.mark.parametrize("started", [False, True])
def test_a_new_version_cancels_the_open_job(user: User, started: bool) -> None:
    """The open ingestion of the old version is cancelled with the new version; a new job may be made."""
    document = new_document(user)
    old_job = start_ingestion(user, document.id) if started else new_job(user, document.id)
    answer = upload(user, pb.ON_DUPLICATE_NEW_VERSION, name=document.name)
    assert (answer.document.version, answer.document.state) == (2, pb.DOCUMENT_STATE_PENDING)
    cancelled = job(user, old_job)
    assert cancelled.state == jobs_pb2.JOB_STATE_CANCELLED
    assert cancelled.summary == "superseded by version 2"
    if started:
        with refused("FAILED_PRECONDITION", "JOB_ENDED"):
            complete(user, old_job)
    complete(user, start_ingestion(user, document.id))
    assert get(user, document.id).ingested_version == 2


def test_a_deprecated_document_stays_out_of_retrieval_until_the_new_version_is_in(user: User) -> None:
    """The deprecation holds while a new version waits, and its success clears it."""
    document = ingested(user)
    user.channel.documents.DeprecateDocument(pb.DeprecateDocumentRequest(id=document.id, reason="old"))
    waiting = upload(user, pb.ON_DUPLICATE_NEW_VERSION, name=document.name).document
    assert (waiting.state, waiting.deprecation_reason) == (pb.DOCUMENT_STATE_PENDING, "old")
    assert waiting.HasField("deprecate_time")
    complete(user, start_ingestion(user, document.id))
    assert not get(user, document.id).HasField("deprecate_time")


def test_a_deleted_document_frees_its_identities(user: User) -> None:
    """After a deletion the same upload creates another document."""
    first = upload(user, external_id="e", content_hash="h").document
    user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=first.id))
    second = upload(user, pb.ON_DUPLICATE_NEW_VERSION, external_id="e", content_hash="h")
    assert second.outcome == CREATED
    assert second.document.id != first.id
