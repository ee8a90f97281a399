"""The count of a database's documents: kept by every path, and right again after a recount."""

from __future__ import annotations

import uuid
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from morag_meta.db.schema import databases
from morag_meta.errors import NotFound
from moragmeta.v1 import documents_pb2
from tests.databases.conftest import (
    add_document,
    create,
    delete_document,
    get,
    make_server,
    recount,
    undelete_document,
)
from tests.refusals import refused
from tests.service import Service, User


def _falsify(service: Service, database_id: str, count: int) -> None:
    with service.database.engine.connect() as connection:
        connection.execute(
            sa.update(databases).where(databases.c.id == database_id).values(document_count=count)
        )


def _live(user: User, database_id: str) -> int:
    request = documents_pb2.ListDocumentsRequest(database_id=database_id, page_size=1000)
    return len(user.channel.documents.ListDocuments(request).documents)


def test_every_path_keeps_the_count(user: User) -> None:
    """Create, batch, delete, undelete and a move change it at once, and stamp the content's time."""
    server = make_server(user)
    one, two = create(user, server, "one"), create(user, server, "two")

    def counts() -> tuple[int, int]:
        return get(user, one.id).document_count, get(user, two.id).document_count

    first = add_document(user, "a.pdf", one.id)
    stamped = get(user, one.id)
    assert stamped.content_update_time.ToDatetime() > one.content_update_time.ToDatetime()
    batch = documents_pb2.BatchCreateDocumentsRequest()
    for number in range(3):
        item = batch.requests.add()
        item.document.MergeFrom(documents_pb2.Document(name=f"{number}.pdf", type="pdf", database_id=one.id))
    user.channel.documents.BatchCreateDocuments(batch)
    assert counts() == (4, 0)
    add_document(user, "free.pdf")
    assert counts() == (4, 0)
    delete_document(user, first.id)
    assert counts() == (3, 0)
    undelete_document(user, first.id)
    assert counts() == (4, 0)
    moved = documents_pb2.Document(id=first.id, database_id=two.id)
    user.channel.documents.UpdateDocument(documents_pb2.UpdateDocumentRequest(document=moved))
    assert counts() == (3, 1)


def test_a_change_that_fails_leaves_the_count(user: User) -> None:
    """A refused document counts for nothing."""
    database = create(user, make_server(user))
    add_document(user, "a.pdf", database.id)
    with refused("ALREADY_EXISTS"):
        add_document(user, "a.pdf", database.id)
    assert get(user, database.id).document_count == 1


def test_documents_leave_the_etag_alone(user: User) -> None:
    """Who renames a database is not disturbed by uploads into it."""
    database = create(user, make_server(user))
    add_document(user, "a.pdf", database.id)
    now = get(user, database.id)
    assert (now.etag, now.update_time) == (database.etag, database.update_time)


def test_a_recount_corrects_the_count(service: Service, user: User) -> None:
    """A count that something falsified is right again, of live documents alone, and the etag stays."""
    database = create(user, make_server(user))
    documents = [add_document(user, f"{number}.pdf", database.id) for number in range(3)]
    delete_document(user, documents[0].id)
    before = get(user, database.id)
    _falsify(service, database.id, 40)
    counted = recount(user, database.id)
    assert counted.document_count == 2
    assert counted.etag == before.etag
    assert counted.content_update_time.ToDatetime() > before.content_update_time.ToDatetime()
    assert get(user, database.id) == counted


def test_a_recount_follows_the_rules_of_a_write(service: Service, user: User) -> None:
    """A foreign database is not found, a VIEWER is refused, an ADMIN may, and a request id is replayed."""
    database = create(user, make_server(user))
    for missing in (database.id, str(uuid.uuid4())):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            recount(service.new_user(), missing)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        recount(service.new_user("VIEWER"), database.id)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "id"):
        recount(user, "papers")
    _falsify(service, database.id, 5)
    assert recount(service.admin, database.id).document_count == 0
    recount(user, database.id, "recount-1")
    _falsify(service, database.id, 5)
    assert recount(user, database.id, "recount-1").document_count == 5


def test_creates_deletes_and_recounts_at_once_end_with_the_true_count(user: User) -> None:
    """However they interleave, the count is the number of live documents, and no call fails."""
    database = create(user, make_server(user))
    doomed = [add_document(user, f"doomed{number}.pdf", database.id) for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        calls: list[Future[object]] = []
        for number in range(12):
            calls.append(pool.submit(add_document, user, f"new{number}.pdf", database.id))
            calls.append(pool.submit(delete_document, user, doomed[number].id))
            if number % 3 == 0:
                calls.append(pool.submit(recount, user, database.id))
        for call in calls:
            call.result()
    assert get(user, database.id).document_count == _live(user, database.id) == 12
    assert recount(user, database.id).document_count == 12


def test_a_count_of_nothing_is_refused(service: Service, user: User) -> None:
    """Counting for a database that the owner does not have is an error, not a change of nothing."""
    database, stranger = create(user, make_server(user)), service.new_user()
    with service.database.unit_of_work() as uow:
        uow.databases.add_to_count(user.id, database.id, 2)
        with pytest.raises(NotFound):
            uow.databases.add_to_count(stranger.id, database.id, 1)
    assert get(user, database.id) == database
