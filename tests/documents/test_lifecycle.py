"""Deprecation and deletion of a document, and the way back, over the wire."""

from __future__ import annotations

import uuid

import pytest

from moragmeta.v1 import databases_pb2
from moragmeta.v1 import documents_pb2 as pb
from tests.documents.states import VERBS, delete, deprecate, in_state, reinstate, state_of, undelete
from tests.documents.wire import (
    CREATED,
    count_of,
    get,
    ingested,
    new_database,
    new_document,
    struct,
    upload,
)
from tests.refusals import refused
from tests.service import Service, User


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
