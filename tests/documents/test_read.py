"""GetDocument and BatchGetDocuments over the wire, and who reads what."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.auth.principal import Role
from moragmeta.v1 import documents_pb2 as pb
from tests.documents.wire import get, new_document, struct
from tests.refusals import refused
from tests.service import Service, User

HEAVY = struct(a=[0] * 30_000)  # 60 KB as JSON, 330 KB on the wire
MEBIBYTE = 2**20


def batch_get(user: User, *ids: str) -> pb.BatchGetDocumentsResponse:
    """Get several documents in one call."""
    return user.channel.documents.BatchGetDocuments(pb.BatchGetDocumentsRequest(ids=ids))


def test_a_document_is_read_with_one_statement(service: Service, user: User) -> None:
    """GetDocument costs the database one statement, and no transaction around it.

    What the server does for itself meanwhile is heard as well, but not each time.
    """
    document = new_document(user)
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(statement)

    engine = service.app.database.engine
    around = []
    for _ in range(5):
        seen.clear()
        sa.event.listen(engine, "before_cursor_execute", note)
        try:
            assert get(user, document.id) == document
        finally:
            sa.event.remove(engine, "before_cursor_execute", note)
        assert len([statement for statement in seen if "FROM documents" in statement]) == 1
        around.append([each for each in seen if each.startswith(("BEGIN", "COMMIT", "ROLLBACK"))])
    assert [] in around


def test_who_reads_what(service: Service, user: User) -> None:
    """A stranger's document and none are NOT_FOUND alike; an ADMIN reads it; a VIEWER reads their own."""
    document = new_document(user)
    for id in (document.id, str(uuid.uuid4())):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            get(service.new_user(), id)
        assert refusal.message == f"document {id} not found"
    assert get(service.admin, document.id) == document
    viewer = service.new_user(Role.VIEWER)
    request = pb.CreateDocumentRequest(document=pb.Document(name="v", type="pdf"), owner_id=viewer.id)
    theirs = service.admin.channel.documents.CreateDocument(request).document
    assert get(viewer, theirs.id) == theirs
    assert batch_get(viewer, theirs.id, document.id).missing_ids == [document.id]


@pytest.mark.parametrize("id", ["", "x", "-", "%", "a\0", "0190A0A0-0000-7000-8000-000000000000", "ü" * 36])
def test_what_is_no_id_is_refused(user: User, id: str) -> None:
    """An id that is not a UUID in its canonical form is INVALID_ARGUMENT."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "id"):
        get(user, id)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "ids[1]"):
        batch_get(user, str(uuid.uuid4()), id or "x")


def test_a_batch_answers_what_is_there(service: Service, user: User) -> None:
    """Documents come in the order of the ids, deleted ones too, each once; the rest is listed as missing."""
    first, second, third = (new_document(user) for _ in range(3))
    deleted = user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=second.id))
    foreign, unknown = new_document(service.new_user()).id, str(uuid.uuid4())
    answer = batch_get(user, third.id, unknown, second.id, third.id, foreign, first.id, unknown)
    assert list(answer.documents) == [third, deleted, first]
    assert list(answer.missing_ids) == [unknown, foreign]
    assert list(answer.deferred_ids) == []
    assert [d.owner_id for d in batch_get(service.admin, foreign, first.id).documents] != [user.id] * 2


def test_a_batch_has_limits(user: User) -> None:
    """No id and 101 ids are refused; 100 are answered."""
    ids = [str(uuid.uuid4()) for _ in range(101)]
    assert list(batch_get(user, *ids[:100]).missing_ids) == ids[:100]
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "ids"):
        batch_get(user, *ids)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "ids"):
        batch_get(user)


def test_a_batch_never_answers_more_than_a_message_holds(user: User) -> None:
    """What does not fit into 3.5 MiB is deferred, and asking again for it answers the rest."""
    documents = {
        document.id: document for document in (new_document(user, metadata=HEAVY) for _ in range(15))
    }
    waiting, calls = list(documents), 0
    while waiting:
        answer = batch_get(user, *waiting)
        assert answer.ByteSize() < 3.5 * MEBIBYTE
        assert [documents.pop(document.id) for document in answer.documents] == list(answer.documents)
        waiting, calls = list(answer.deferred_ids), calls + 1
    assert (documents, calls) == ({}, 2)
