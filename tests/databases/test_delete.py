"""DeleteDatabase over the wire: documents, force, settings, etags, repeats and who may."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from moragmeta.v1 import documents_pb2
from tests.databases.conftest import (
    add_document,
    create,
    default_of,
    delete,
    delete_document,
    get,
    get_document,
    make_server,
    set_default,
    undelete_document,
)
from tests.refusals import refused
from tests.service import Service, User


def _attempt(user: User, database_id: str, number: int) -> str:
    try:
        return add_document(user, f"{number}.pdf", database_id).id
    except grpc.RpcError as error:
        return str(error.code().name)


def _set_default(user: User, database_id: str) -> str:
    try:
        set_default(user, database_id)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_an_empty_database_goes_for_good(user: User) -> None:
    """It is not found any more, and its name is free."""
    database = create(user, make_server(user))
    assert delete(user, database.id) == 0
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        get(user, database.id)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        delete(user, database.id)
    create(user, database.server_id)


def test_a_database_with_documents_stays_unless_forced(user: User) -> None:
    """The refusal says how many there are, and nothing is touched."""
    database = create(user, make_server(user))
    document = add_document(user, "a.pdf", database.id)
    add_document(user, "b.pdf", database.id)
    with refused("FAILED_PRECONDITION", "HAS_CHILDREN") as refusal:
        delete(user, database.id)
    assert refusal.metadata == {"children": "documents", "count": "2"}
    assert get(user, database.id).document_count == 2
    assert get_document(user, document.id) == document


def test_force_detaches_the_documents_and_counts_the_live_ones(user: User) -> None:
    """Deleted documents are detached too, without being counted; those elsewhere are left alone."""
    server = make_server(user)
    database, other = create(user, server), create(user, server, "other")
    documents = [add_document(user, f"{number}.pdf", database.id) for number in range(3)]
    elsewhere = add_document(user, "a.pdf", other.id)
    delete_document(user, documents[0].id)
    assert delete(user, database.id, force=True) == 2
    for document in documents:
        assert not get_document(user, document.id).HasField("database_id")
    assert get_document(user, elsewhere.id) == elsewhere
    undelete_document(user, documents[0].id)


def test_deleted_documents_do_not_hold_a_database(user: User) -> None:
    """They are detached silently, also without force."""
    database = create(user, make_server(user))
    document = add_document(user, "a.pdf", database.id)
    delete_document(user, document.id)
    assert delete(user, database.id) == 0
    found = get_document(user, document.id)
    assert found.state == documents_pb2.DOCUMENT_STATE_DELETED
    assert not found.HasField("database_id")


def test_documents_of_one_name_can_be_detached_together(user: User) -> None:
    """Two databases that hold a document of one name can both be deleted with force."""
    server = make_server(user)
    for name in ("one", "two"):
        database = create(user, server, name)
        add_document(user, "same.pdf", database.id)
        assert delete(user, database.id, force=True) == 1
    listed = user.channel.documents.ListDocuments(documents_pb2.ListDocumentsRequest()).documents
    assert [document.name for document in listed] == ["same.pdf", "same.pdf"]


def test_a_default_that_names_it_is_cleared_and_another_is_not(user: User) -> None:
    """The owner's settings never name a database that is gone."""
    server = make_server(user)
    database, other = create(user, server), create(user, server, "other")
    set_default(user, other.id)
    third = create(user, server, "third")
    assert delete(user, third.id) == 0
    assert default_of(user) == other.id
    set_default(user, database.id)
    assert delete(user, database.id) == 0
    assert default_of(user) is None


@pytest.mark.parametrize("force", [False, True])
def test_an_old_etag_aborts(user: User, force: bool) -> None:
    """Somebody who saw an older database does not delete this one."""
    database = create(user, make_server(user))
    with refused("ABORTED", "ETAG_MISMATCH"):
        delete(user, database.id, etag='"99"', force=force)
    assert delete(user, database.id, etag=database.etag, force=force) == 0


def test_a_repeated_deletion_says_what_the_first_one_did(user: User) -> None:
    """Under one request id the repeat gives the same number; with another body it is refused."""
    database = create(user, make_server(user))
    add_document(user, "a.pdf", database.id)
    assert delete(user, database.id, force=True, request_id="delete-1") == 1
    assert delete(user, database.id, force=True, request_id="delete-1") == 1
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        delete(user, database.id, request_id="delete-1")


def test_others_do_not_find_it_and_an_admin_deletes_it(service: Service, user: User) -> None:
    """A foreign database is not found, a VIEWER deletes nothing; an ADMIN clears the owner's default."""
    database = create(user, make_server(user))
    set_default(user, database.id)
    for force in (False, True):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            delete(service.new_user(), database.id, force=force)
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            delete(user, str(uuid.uuid4()), force=force)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        delete(service.new_user("VIEWER"), database.id)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "id"):
        delete(user, "papers")
    assert delete(service.admin, database.id) == 0
    assert default_of(user) is None


def test_documents_made_during_a_forced_deletion_are_detached_or_refused(user: User) -> None:
    """No document names a database that is gone, and each that was made before was counted."""
    database = create(user, make_server(user))
    with ThreadPoolExecutor(9) as pool:
        creates = [pool.submit(_attempt, user, database.id, number) for number in range(24)]
        deletion = pool.submit(delete, user, database.id, force=True)
        answers = [create.result() for create in creates]
        detached = deletion.result()
    made = [answer for answer in answers if answer != "NOT_FOUND"]
    assert len(made) == detached
    for id in made:
        assert not get_document(user, id).HasField("database_id")


def test_a_default_set_during_a_deletion_does_not_outlive_it(user: User) -> None:
    """Whichever comes first, the settings name no database that is gone, and nobody waits for ever."""
    server = make_server(user)
    for number in range(6):
        database = create(user, server, f"d{number}")
        with ThreadPoolExecutor(3) as pool:
            setting = [pool.submit(_set_default, user, database.id) for _ in range(2)]
            assert pool.submit(delete, user, database.id).result() == 0
            assert {future.result() for future in setting} <= {"OK", "NOT_FOUND"}
        assert default_of(user) is None
