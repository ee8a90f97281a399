"""UpdateDocument over the wire: masks, etags and identities."""

from __future__ import annotations

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from moragmeta.v1 import documents_pb2 as pb
from tests.documents.wire import (
    get,
    new_database,
    new_document,
    start_ingestion,
    struct,
    update,
    upload,
)
from tests.refusals import refused
from tests.service import Service, User

FULL: dict[str, Any] = {
    "name": "full.pdf",
    "type": "pdf",
    "source": "/in/full.pdf",
    "size_bytes": 10,
    "external_id": "e",
    "content_hash": "h",
    "metadata": struct(a=1),
}
NEW: dict[str, Any] = {
    "name": "new.md",
    "type": "md",
    "source": "/in/new.md",
    "size_bytes": 2**50,
    "external_id": "e2",
    "content_hash": "h2",
    "metadata": struct(b=[1]),
}


@pytest.mark.parametrize("field", NEW)
def test_a_masked_field_is_written_alone(user: User, field: str) -> None:
    """Only what the mask names changes, whatever else is sent."""
    before = upload(user, **FULL).document
    after = update(user, before.id, field, **NEW)
    assert getattr(after, field) == NEW[field]
    assert after.etag != before.etag
    assert get(user, before.id) == after
    for document in (before, after):
        for name in (field, "etag", "update_time"):
            document.ClearField(name)  # type: ignore[arg-type]
    assert after == before


@pytest.mark.parametrize("field", ["source", "external_id", "content_hash", "metadata", "size_bytes"])
def test_a_named_field_that_is_not_set_is_cleared(user: User, field: str) -> None:
    """An optional field in the mask without a value becomes none."""
    document = upload(user, **FULL).document
    after = update(user, document.id, field)
    assert field not in {each.name for each, _ in after.ListFields()}
    assert after.name == "full.pdf"


@pytest.mark.parametrize("field", ["name", "type"])
def test_a_required_field_is_not_cleared(user: User, field: str) -> None:
    """Name and type in the mask without a value are refused; without being named they may be empty."""
    document = upload(user, **FULL).document
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"document.{field}"):
        update(user, document.id, field)
    assert update(user, document.id, "source", source="x").name == "full.pdf"


def test_without_a_mask_what_is_set_is_written(user: User) -> None:
    """No mask means every field that is set; an empty update changes nothing at all."""
    document = upload(user, **FULL).document
    after = update(user, document.id, source="elsewhere", chunks=9, state=pb.DOCUMENT_STATE_INGESTED)
    assert (after.source, after.name, after.chunks, after.state) == (
        "elsewhere",
        "full.pdf",
        0,
        pb.DOCUMENT_STATE_PENDING,
    )
    assert update(user, document.id) == after


def test_a_star_writes_everything(user: User) -> None:
    """The mask ``*`` replaces every writable field, and clears those that are not set."""
    document = upload(user, **FULL, database_id=new_database(user)).document
    after = update(user, document.id, "*", name="star.pdf", type="md")
    assert {each.name for each, _ in after.ListFields()} == {
        *("id", "owner_id", "name", "type", "state", "version", "create_time", "update_time", "etag"),
    }
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "document.name", "document.type"):
        update(user, document.id, "*")


@pytest.mark.parametrize(
    "path",
    [
        *("id", "owner_id", "state", "version", "ingested_version", "chunks", "quality", "last_error"),
        *("deprecation_reason", "deprecate_time", "ingest_time", "delete_time", "create_time"),
        *("update_time", "etag", "nothing", "metadata.a", "Name", "", "name,type", "document.name", "\0"),
    ],
)
def test_a_mask_names_writable_fields(user: User, path: str) -> None:
    """Anything but the name of a field that a caller writes is refused, and nothing is written."""
    document = upload(user, **FULL).document
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        update(user, document.id, "name", path, name="x")
    assert get(user, document.id) == document


def test_values_are_checked_as_on_create(user: User) -> None:
    """A masked value that breaks its rule is refused with its path, and the id must be one."""
    document = upload(user, **FULL).document
    bad: dict[str, Any] = {"name": "x" * 256, "size_bytes": -1, "database_id": "x", "content_hash": "ä"}
    for field, value in bad.items():
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"document.{field}"):
            update(user, document.id, field, **{field: value})
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "document.metadata"):
        update(user, document.id, "metadata", metadata=struct(a=float("nan")))
    for id in ("", "x", "a\0"):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "document.id"):
            update(user, id, "name", name="x")
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        update(user, str(uuid.uuid4()), "name", name="x")
    assert get(user, document.id) == document


def test_the_etag_guards_against_lost_updates(user: User) -> None:
    """Of two updates made on one state, the second is ABORTED; without an etag it is not checked."""
    document = upload(user, **FULL).document
    first = update(user, document.id, "name", name="first.pdf", etag=document.etag)
    with refused("ABORTED", "ETAG_MISMATCH"):
        update(user, document.id, "name", name="second.pdf", etag=document.etag)
    assert get(user, document.id) == first
    assert update(user, document.id, "name", name="third.pdf").name == "third.pdf"


def test_of_many_updates_with_one_etag_one_is_done(user: User) -> None:
    """Sixteen updates at once made on the same state: one succeeds, fifteen are ABORTED."""
    document = upload(user, **FULL).document

    def run(number: int) -> Any:
        try:
            return update(user, document.id, "name", name=f"{number}.pdf", etag=document.etag).name
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(run, range(16)))
    assert answers.pop(grpc.StatusCode.ABORTED) == 15
    assert list(answers) == [get(user, document.id).name]


@pytest.mark.parametrize("field", ["name", "external_id", "content_hash"])
def test_an_identity_of_another_document_is_taken(user: User, field: str) -> None:
    """An update to an identity that a live document has is refused and names it; one's own is not."""
    other = upload(user, **FULL).document
    document = new_document(user)
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        update(user, document.id, field, **{field: FULL[field]})
    assert refusal.metadata == {"resource_type": "document", "field": field, "existing_id": other.id}
    assert getattr(update(user, other.id, field, **{field: FULL[field]}), field) == FULL[field]
    user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=other.id))
    assert getattr(update(user, document.id, field, **{field: FULL[field]}), field) == FULL[field]


def test_of_many_renames_to_one_name_one_is_done(user: User) -> None:
    """Sixteen documents that take one name at once: one has it, fifteen are ALREADY_EXISTS."""
    ids = [new_document(user).id for _ in range(16)]

    def run(id: str) -> Any:
        try:
            return update(user, id, "name", name="one.pdf").name
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(run, ids))
    assert answers == {"one.pdf": 1, grpc.StatusCode.ALREADY_EXISTS: 15}


@pytest.mark.parametrize("state", ["INGESTING", "DELETED"])
def test_where_an_update_is_allowed(user: User, state: str) -> None:
    """A document being ingested can be changed, a deleted one not."""
    document = new_document(user)
    if state == "INGESTING":
        start_ingestion(user, document.id)
        assert update(user, document.id, "type", type="md").state == pb.DOCUMENT_STATE_INGESTING
        return
    user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=document.id))
    with refused("FAILED_PRECONDITION", "INVALID_STATE") as refusal:
        update(user, document.id, "type", type="md")
    assert refusal.metadata == {"resource_type": "document", "state": "DELETED"}


def test_a_repeated_update_is_done_once(user: User) -> None:
    """A repeat with the same request id answers the document as it now is, and writes nothing."""
    document, id = upload(user, **FULL).document, str(uuid.uuid4())
    update(user, document.id, "name", name="first.pdf", request_id=id)
    later = update(user, document.id, "name", name="later.pdf")
    assert update(user, document.id, "name", name="first.pdf", request_id=id) == later
    assert get(user, document.id) == later


def test_who_updates_what(service: Service, user: User) -> None:
    """A stranger's document is NOT_FOUND, a VIEWER writes nothing, an ADMIN writes anybody's."""
    document = upload(user, **FULL).document
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        update(service.new_user(), document.id, "name", name="x")
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        update(service.new_user("VIEWER"), document.id, "name", name="x")
    assert update(service.admin, document.id, "name", name="by admin.pdf").owner_id == user.id
