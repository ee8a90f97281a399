"""DeleteServer over the wire: children, force, etags, repeats and who may."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from moragmeta.v1 import databases_pb2, servers_pb2
from tests.databases import conftest as databases
from tests.refusals import refused
from tests.servers.conftest import create, delete, get
from tests.service import Service, User


def _attempt(user: User, server_id: str, number: int) -> str:
    try:
        databases.create(user, server_id, f"d{number}")
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_a_server_without_databases_goes_for_good(user: User) -> None:
    """It is not found any more, and its name is free."""
    server = create(user)
    assert delete(user, server.id) == (0, 0)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        get(user, server.id)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        delete(user, server.id)
    create(user)


def test_a_server_with_databases_stays_unless_forced(user: User) -> None:
    """The refusal says how many children there are, and nothing is touched."""
    server = create(user)
    for name in ("a", "b"):
        databases.create(user, server.id, name)
    with refused("FAILED_PRECONDITION", "HAS_CHILDREN") as refusal:
        delete(user, server.id)
    assert refusal.metadata == {"children": "databases", "count": "2"}
    assert get(user, server.id) == server
    assert len(user.channel.databases.ListDatabases(databases_pb2.ListDatabasesRequest()).databases) == 2


def test_force_deletes_the_databases_and_keeps_the_documents(user: User) -> None:
    """Documents are detached and counted, deleted ones without being counted; others stay as they are."""
    server, other = create(user), create(user, name="other")
    first, second = databases.create(user, server.id, "first"), databases.create(user, server.id, "second")
    kept = databases.create(user, other.id, "kept")
    documents = [databases.add_document(user, f"{n}.pdf", first.id) for n in range(3)]
    documents.append(databases.add_document(user, "0.pdf", second.id))
    elsewhere = databases.add_document(user, "0.pdf", kept.id)
    databases.delete_document(user, documents[0].id)
    databases.set_default(user, second.id)
    assert delete(user, server.id, force=True) == (2, 3)
    for document in documents:
        assert not databases.get_document(user, document.id).HasField("database_id")
    assert databases.get_document(user, elsewhere.id) == elsewhere
    assert databases.default_of(user) is None
    for gone in (first, second):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            databases.get(user, gone.id)
    assert databases.get(user, kept.id).document_count == 1


def test_force_leaves_a_default_on_another_server(user: User) -> None:
    """Only a default that goes is cleared."""
    server, other = create(user), create(user, name="other")
    databases.create(user, server.id, "gone")
    kept = databases.create(user, other.id, "kept")
    databases.set_default(user, kept.id)
    assert delete(user, server.id, force=True) == (1, 0)
    assert databases.default_of(user) == kept.id


@pytest.mark.parametrize("force", [False, True])
def test_an_old_etag_aborts(user: User, force: bool) -> None:
    """Somebody who saw an older server does not delete this one."""
    server = create(user)
    with refused("ABORTED", "ETAG_MISMATCH"):
        delete(user, server.id, etag='"99"', force=force)
    assert delete(user, server.id, etag=server.etag, force=force) == (0, 0)


def test_a_repeated_deletion_says_what_the_first_one_did(user: User) -> None:
    """Under one request id the repeat gives the same numbers, without one it finds nothing."""
    server = create(user)
    database = databases.create(user, server.id)
    databases.add_document(user, "a.pdf", database.id)
    assert delete(user, server.id, force=True, request_id="delete-1") == (1, 1)
    assert delete(user, server.id, force=True, request_id="delete-1") == (1, 1)
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        delete(user, server.id, request_id="delete-1")
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        delete(user, server.id, force=True)


def test_a_refused_deletion_does_not_use_up_its_request_id(user: User) -> None:
    """After the obstacle is gone the same call succeeds."""
    server = create(user)
    database = databases.create(user, server.id)
    with refused("FAILED_PRECONDITION", "HAS_CHILDREN"):
        delete(user, server.id, request_id="delete-1")
    databases.delete(user, database.id)
    assert delete(user, server.id, request_id="delete-1") == (0, 0)


def test_others_do_not_find_it_and_an_admin_deletes_it(service: Service, user: User) -> None:
    """A foreign server is not found, a VIEWER deletes nothing, an ADMIN deletes it with what is on it."""
    server = create(user)
    document = databases.add_document(user, "a.pdf", databases.create(user, server.id).id)
    for force in (False, True):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            delete(service.new_user(), server.id, force=force)
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            delete(user, str(uuid.uuid4()), force=force)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        delete(service.new_user("VIEWER"), server.id)
    assert delete(service.admin, server.id, force=True) == (1, 1)
    assert not databases.get_document(user, document.id).HasField("database_id")


@pytest.mark.parametrize("id", ["", "x", "a\x00"])
def test_an_id_that_is_none_is_refused(user: User, id: str) -> None:
    """Only a UUID is looked for."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "id"):
        delete(user, id)


def test_databases_made_during_a_forced_deletion_go_with_it_or_are_refused(user: User) -> None:
    """No database is left without its server, and each create that succeeded was counted."""
    server = create(user)
    with ThreadPoolExecutor(9) as pool:
        creates = [pool.submit(_attempt, user, server.id, number) for number in range(24)]
        deletion = pool.submit(delete, user, server.id, force=True)
        answers = [create.result() for create in creates]
        deleted, _ = deletion.result()
    assert set(answers) <= {"OK", "NOT_FOUND"}
    assert answers.count("OK") == deleted
    left = user.channel.databases.ListDatabases(databases_pb2.ListDatabasesRequest()).databases
    assert not left
    assert not user.channel.servers.ListServers(servers_pb2.ListServersRequest()).servers
