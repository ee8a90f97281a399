"""Moving documents into, between and out of databases, over the wire."""

from __future__ import annotations

import itertools
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from moragmeta.v1 import databases_pb2
from moragmeta.v1 import documents_pb2 as pb
from tests.documents.wire import (
    CREATED,
    count_of,
    get,
    ingested,
    new_database,
    new_document,
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


def test_a_document_moves_between_databases(user: User) -> None:
    """Assigning, moving and taking out keep both counts true, and the state as it is."""
    first, second = new_database(user), new_database(user)
    document = ingested(user)

    def counts() -> tuple[int, int]:
        return count_of(user, first), count_of(user, second)

    assert update(user, document.id, "database_id", database_id=first).database_id == first
    assert counts() == (1, 0)
    assert update(user, document.id, "database_id", database_id=first).database_id == first
    assert counts() == (1, 0)
    moved = update(user, document.id, "database_id", database_id=second)
    assert (moved.database_id, moved.state) == (second, pb.DOCUMENT_STATE_INGESTED)
    assert counts() == (0, 1)
    assert not update(user, document.id, "database_id").HasField("database_id")
    assert counts() == (0, 0)


def test_a_move_takes_the_identities_along(user: User) -> None:
    """A document cannot move to where its name is taken, and frees its name where it was."""
    database_id = new_database(user)
    inside = upload(user, **FULL, database_id=database_id).document
    outside = upload(user, **FULL).document
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        update(user, outside.id, "database_id", database_id=database_id)
    assert refusal.metadata["existing_id"] == inside.id
    update(user, outside.id, "*", name="other.pdf", type="pdf", database_id=database_id)
    assert upload(user, **FULL).outcome == CREATED
    assert count_of(user, database_id) == 2


def test_a_document_detached_by_force_stays_apart(user: User) -> None:
    """What a forced deletion left in no database collides with nothing, until it is moved on purpose."""
    database_id = new_database(user)
    detached = upload(user, **FULL, database_id=database_id).document
    request = databases_pb2.DeleteDatabaseRequest(id=database_id, force=True)
    user.channel.databases.DeleteDatabase(request)
    assert upload(user, **FULL).outcome == CREATED
    assert update(user, detached.id, "database_id", "type", type="md").type == "md"
    home = new_database(user)
    assert update(user, detached.id, "database_id", database_id=home).database_id == home
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        update(user, detached.id, "database_id")


def test_a_foreign_database_is_not_found(service: Service, user: User) -> None:
    """A document moves only to a database of its own owner, also when an ADMIN moves it."""
    document = upload(user, **FULL).document
    for mover, database_id in itertools.product(
        (user, service.admin), (new_database(service.admin), str(uuid.uuid4()))
    ):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            update(mover, document.id, "database_id", database_id=database_id)
        assert refusal.metadata == {"resource_type": "database", "resource_id": database_id}
    assert get(user, document.id) == document


def test_moves_at_once_keep_the_counts(user: User) -> None:
    """Documents that are moved, deleted and created by many at once are counted where they are."""
    databases = [new_database(user) for _ in range(3)]
    documents = [new_document(user, database_id=databases[n % 3]).id for n in range(6)]

    def run(number: int) -> Any:
        id, to = documents[number % 6], databases[number % 5 % 3]
        try:
            if number % 7 == 0:
                user.channel.documents.DeleteDocument(pb.DeleteDocumentRequest(id=id))
            elif number % 7 == 1:
                new_document(user, database_id=to)
            else:
                update(user, id, "database_id", database_id=to)
        except grpc.RpcError as error:
            return error.code()
        return None

    with ThreadPoolExecutor(12) as pool:
        answers = set(pool.map(run, range(60)))
    assert answers <= {None, grpc.StatusCode.FAILED_PRECONDITION}  # which is deleted by now
    for database_id in databases:
        request = pb.ListDocumentsRequest(database_id=database_id, page_size=1000)
        assert count_of(user, database_id) == len(user.channel.documents.ListDocuments(request).documents)
