"""CreateDocument and BatchCreateDocuments over the wire, but for duplicates."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest

from morag_meta.auth.principal import Role
from moragmeta.v1 import documents_pb2 as pb
from tests.documents.wire import (
    CREATED,
    EXISTING,
    count_of,
    get,
    new_database,
    new_document,
    request,
    struct,
    upload,
)
from tests.refusals import refused
from tests.service import Service, User


def test_a_document_is_created_pending(user: User) -> None:
    """Every field that is written comes back, and the server's own fields start as the contract says."""
    database_id = new_database(user)
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    answer = upload(
        user,
        database_id=database_id,
        name="Übung 1.pdf",
        source="/in/Übung 1.pdf",
        size_bytes=2**40,
        external_id="ext 1",
        content_hash="sha256:00ff",
        metadata=struct(pages=3, tags=["a", None, {"b": 1.5}]),
    )
    document = answer.document
    assert answer.outcome == CREATED
    assert not answer.replayed
    assert (document.owner_id, document.database_id) == (user.id, database_id)
    assert uuid.UUID(document.id).version == 7
    assert document.state == pb.DOCUMENT_STATE_PENDING
    assert (document.version, document.ingested_version, document.chunks, document.quality) == (1, 0, 0, 0.0)
    assert (document.name, document.source) == ("Übung 1.pdf", "/in/Übung 1.pdf")
    assert (document.size_bytes, document.external_id) == (2**40, "ext 1")
    assert document.content_hash == "sha256:00ff"
    assert document.metadata == struct(pages=3, tags=["a", None, {"b": 1.5}])
    assert before < document.create_time.ToDatetime(dt.UTC) < before + dt.timedelta(seconds=60)
    assert document.update_time == document.create_time
    assert {field.name for field, _ in document.ListFields()} == {
        *("id", "owner_id", "database_id", "name", "type", "state", "version", "size_bytes", "source"),
        *("external_id", "content_hash", "metadata", "create_time", "update_time", "etag"),
    }
    assert get(user, document.id) == document
    assert count_of(user, database_id) == 1


def test_what_only_the_server_writes_is_ignored(user: User) -> None:
    """Output-only fields of a create are ignored, whatever they hold."""
    sent = {
        "id": "not an id",
        "owner_id": "x",
        "state": pb.DOCUMENT_STATE_INGESTED,
        "version": 9,
        "ingested_version": 9,
        "chunks": -1,
        "quality": 7.0,
        "last_error": "x",
        "etag": "x",
    }
    document = new_document(user, **sent)
    assert (document.owner_id, document.state, document.version) == (
        user.id,
        pb.DOCUMENT_STATE_PENDING,
        1,
    )
    assert (document.ingested_version, document.chunks, document.quality) == (0, 0, 0.0)
    assert not document.HasField("last_error")
    assert document.etag != "x"


LONG = {"name": 255, "type": 50, "source": 1024, "external_id": 255, "content_hash": 128}


@pytest.mark.parametrize("field", LONG)
def test_texts_are_as_long_as_the_contract_says(user: User, field: str) -> None:
    """The greatest length is taken and comes back whole, one character more is refused."""
    letter = "x" if field == "content_hash" else "𝄞"  # outside the basic plane: 4 bytes
    longest = letter * LONG[field]
    assert getattr(new_document(user, **{field: longest}), field) == longest
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"document.{field}"):
        new_document(user, **{field: longest + letter})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " \t"),
        ("name", "a\nb"),
        ("name", "a\0b"),
        ("type", ""),
        ("type", "p\0"),
        ("source", "a\0"),
        ("external_id", "a\tb"),
        ("external_id", "\x7f"),
        ("content_hash", "a b"),
        ("content_hash", "ä"),
        ("size_bytes", -1),
        ("database_id", "x"),
        ("database_id", "-"),
    ],
)
def test_bad_values_name_their_field(user: User, field: str, value: Any) -> None:
    """A value that breaks its rule is INVALID_ARGUMENT with the field's path."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"document.{field}"):
        upload(user, **{field: value})


def test_an_empty_optional_text_is_none(user: User) -> None:
    """An empty external id, hash, source or database is the same as none, and identifies nothing."""
    fields = {"external_id": "", "content_hash": "", "source": "", "database_id": ""}
    first, second = new_document(user, **fields), new_document(user, **fields)
    assert first.id != second.id
    assert not fields.keys() & {field.name for field, _ in second.ListFields()}


def test_metadata_are_bounded(user: User) -> None:
    """Metadata of 64 KiB and 16 levels are taken; more, NUL, or a number that is not finite is refused."""
    largest = struct(a="x" * (65_536 - len('{"a":""}')))
    assert new_document(user, metadata=largest).metadata == largest
    deepest: Any = {}
    for _ in range(15):
        deepest = {"a": deepest}
    assert new_document(user, metadata=struct(**deepest)).metadata == struct(**deepest)
    too_large = struct(a="x" * 65_536)
    for bad in (too_large, struct(a=deepest), struct(a=float("nan")), struct(a="\0"), struct(**{"\0": 1})):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "document.metadata"):
            upload(user, metadata=bad)


def test_metadata_keep_what_they_say(user: User) -> None:
    """Numbers, order of nesting and characters of every plane come back as they were sent."""
    sent = struct(
        whole=2**53, small=5e-324, negative=-0.5, empty={}, none=None, list=[], text="𝄞\n\"\\'%s:x", yes=True
    )
    document = new_document(user, metadata=sent)
    assert get(user, document.id).metadata == sent


def test_an_unknown_choice_is_refused(user: User) -> None:
    """A number that is no value of OnDuplicate is INVALID_ARGUMENT."""
    sent = request()
    sent.on_duplicate = 17  # type: ignore[assignment]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "on_duplicate"):
        user.channel.documents.CreateDocument(sent)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "document"):
        user.channel.documents.CreateDocument(pb.CreateDocumentRequest())


def test_a_database_must_be_the_owners(service: Service, user: User) -> None:
    """Somebody else's database and one that does not exist answer the same."""
    for database_id in (new_database(service.new_user()), str(uuid.uuid4())):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            upload(user, database_id=database_id)
        assert refusal.metadata == {"resource_type": "database", "resource_id": database_id}


def test_only_an_admin_creates_for_others(service: Service, user: User) -> None:
    """An ADMIN creates a user's document in the user's database; anybody else is refused."""
    database_id = new_database(user)
    sent = request(database_id=database_id)
    sent.owner_id = user.id
    answer = service.admin.channel.documents.CreateDocument(sent)
    assert answer.document.owner_id == user.id
    assert get(user, answer.document.id).database_id == database_id
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        service.new_user().channel.documents.CreateDocument(sent)
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        service.new_user().channel.documents.BatchCreateDocuments(
            pb.BatchCreateDocumentsRequest(requests=[request()], owner_id=user.id)
        )
    sent = request()
    sent.owner_id = str(uuid.uuid4())
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        service.admin.channel.documents.CreateDocument(sent)
    assert refusal.metadata == {"resource_type": "user", "resource_id": sent.owner_id}


def test_a_viewer_creates_nothing(service: Service) -> None:
    """A VIEWER is PERMISSION_DENIED."""
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        upload(service.new_user(Role.VIEWER))


def test_a_repeated_request_creates_once(user: User) -> None:
    """A repeat with the same request id answers the document as it now is, and says that it did nothing."""
    sent = request(name="r.pdf", metadata=struct(a=1))
    sent.request_id = str(uuid.uuid4())
    first = user.channel.documents.CreateDocument(sent)
    user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=first.document.id))
    second, call = user.channel.documents.CreateDocument.with_call(sent)
    assert (second.outcome, second.replayed) == (CREATED, True)
    assert second.document == get(user, first.document.id)
    assert second.document.state == pb.DOCUMENT_STATE_DELETED
    assert ("morag-replayed", "true") in list(call.trailing_metadata())
    sent.document.name = "other.pdf"
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        user.channel.documents.CreateDocument(sent)


def batch(user: User, *requests: pb.CreateDocumentRequest, request_id: str = "") -> Any:
    """Create documents in one call."""
    return user.channel.documents.BatchCreateDocuments(
        pb.BatchCreateDocumentsRequest(requests=requests, request_id=request_id)
    )


def test_a_batch_is_created_in_order(user: User) -> None:
    """A hundred documents are created in one call, answered in order and counted."""
    first, second = new_database(user), new_database(user)
    scopes = [None, first, second, first]
    requests = [request(name=f"{n}.pdf", database_id=scopes[n % 4]) for n in range(100)]
    answers = batch(user, *requests).responses
    assert [answer.document.name for answer in answers] == [f"{n}.pdf" for n in range(100)]
    assert {answer.outcome for answer in answers} == {CREATED}
    assert (count_of(user, first), count_of(user, second)) == (50, 25)
    assert get(user, answers[7].document.id) == answers[7].document


def test_a_batch_is_created_whole_or_not_at_all(user: User) -> None:
    """One bad item leaves nothing behind, and the error names it."""
    database_id = new_database(user)
    good = [request(name=f"{n}.pdf", database_id=database_id) for n in range(3)]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "requests[3].document.name"):
        batch(user, *good, request(name=""))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "requests[3].document.metadata"):
        batch(user, *good, request(metadata=struct(a=float("inf"))))
    missing = str(uuid.uuid4())
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        batch(user, *good, request(database_id=missing))
    assert refusal.metadata["field"] == "requests[3].document.database_id"
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        batch(user, *good, request(name="1.pdf", database_id=database_id))
    assert refusal.metadata["field"] == "requests[3].document.name"
    assert count_of(user, database_id) == 0
    assert not user.channel.documents.ListDocuments(pb.ListDocumentsRequest()).documents


def test_a_batch_may_repeat_itself(user: User) -> None:
    """A later item may be a duplicate of an earlier one."""
    again = request(pb.ON_DUPLICATE_RETURN_EXISTING)
    answers = batch(user, request(), again, again).responses
    assert [answer.outcome for answer in answers] == [CREATED, EXISTING, EXISTING]
    assert len({answer.document.id for answer in answers}) == 1


def test_a_batch_has_limits(user: User) -> None:
    """No item, 101 items, and an item with an owner or request id of its own are refused."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "requests"):
        batch(user)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "requests"):
        batch(user, *(request(name=f"{n}.pdf") for n in range(101)))
    for name, value in (("owner_id", user.id), ("request_id", "r1")):
        item = request()
        setattr(item, name, value)
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"requests[1].{name}"):
            batch(user, request(name="b.pdf"), item)


def test_a_repeated_batch_is_done_once(user: User) -> None:
    """A repeat with the same request id answers every document as it now is, each marked as a replay."""
    id = str(uuid.uuid4())
    again = request(pb.ON_DUPLICATE_RETURN_EXISTING)
    first = batch(user, request(), again, request_id=id)
    second = batch(user, request(), again, request_id=id)
    assert [answer.outcome for answer in second.responses] == [CREATED, EXISTING]
    assert all(answer.replayed for answer in second.responses)
    assert [a.document for a in second.responses] == [a.document for a in first.responses]


def test_a_batch_never_answers_more_than_a_message_holds(user: User) -> None:
    """When the answer would pass 3.5 MiB, the call is refused and nothing is created."""
    heavy = struct(a=[0] * 30_000)  # 60 KB as JSON, 330 KB on the wire
    for number in range(12):
        upload(user, name=f"{number}.pdf", metadata=heavy)
    light = [request(pb.ON_DUPLICATE_RETURN_EXISTING, name=f"{n}.pdf") for n in range(12)]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "requests"):
        batch(user, request(name="new.pdf"), *light)
    assert upload(user, name="new.pdf").outcome == CREATED
