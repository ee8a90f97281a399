"""DatabaseService over the wire: the standard methods, but for deletion."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from moragmeta.v1 import databases_pb2 as pb
from moragmeta.v1 import servers_pb2
from tests.databases.conftest import create, get, make_server, update
from tests.refusals import refused
from tests.service import Service, User


def _list(user: User, **request: Any) -> pb.ListDatabasesResponse:
    response: pb.ListDatabasesResponse = user.channel.databases.ListDatabases(
        pb.ListDatabasesRequest(**request)
    )
    return response


def _names(user: User, **request: Any) -> list[str]:
    return [database.name for database in _list(user, **request).databases]


def test_a_database_starts_empty_on_its_server(user: User) -> None:
    """What is made is what is read: the owner's, with no documents, its content as old as itself."""
    server = make_server(user)
    created = create(user, server, description="Papers,\n\tall of them")
    assert uuid.UUID(created.id).version == 7
    assert (created.owner_id, created.server_id) == (user.id, server)
    assert (created.name, created.description) == ("papers", "Papers,\n\tall of them")
    assert created.document_count == 0
    assert created.content_update_time == created.create_time == created.update_time
    assert get(user, created.id) == created


def test_output_only_fields_are_ignored(user: User) -> None:
    """A client cannot choose the id, the owner or the count."""
    created = create(user, make_server(user), id="x", owner_id="somebody", document_count=7, etag='"7"')
    assert created.id != "x"
    assert (created.owner_id, created.document_count) == (user.id, 0)


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"name": ""}, "database.name"),
        ({"name": "x" * 256}, "database.name"),
        ({"name": "a\x00"}, "database.name"),
        ({"description": "x" * 10_001}, "database.description"),
        ({"description": "\x00"}, "database.description"),
        ({"server_id": ""}, "database.server_id"),
        ({"server_id": "main"}, "database.server_id"),
        ({"server_id": "a\x00"}, "database.server_id"),
    ],
)
def test_a_field_beyond_its_limit_is_refused_by_name(
    user: User, fields: dict[str, Any], violation: str
) -> None:
    """Each limit of the proto answers INVALID_ARGUMENT naming the field."""
    given = {"server_id": make_server(user)} | fields
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        create(user, **given)


def test_values_at_their_limits_are_kept(user: User) -> None:
    """The longest that is allowed is taken, counted in characters and not in bytes."""
    created = create(user, make_server(user), "😀" * 255, description="€" * 10_000)
    assert (get(user, created.id).name, created.description) == ("😀" * 255, "€" * 10_000)


def test_a_server_of_somebody_else_answers_as_one_that_is_not_there(service: Service, user: User) -> None:
    """The server is not found, in the same words, whoever owns it and also for an ADMIN."""
    foreign = make_server(service.new_user())
    for caller in (user, service.admin):
        messages = []
        for server in (foreign, str(uuid.uuid4())):
            with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
                create(caller, server)
            assert refusal.metadata == {"resource_type": "server", "resource_id": server}
            messages.append(refusal.message.replace(server, ""))
        assert messages[0] == messages[1]


def test_a_name_is_taken_once_per_owner_on_all_servers(service: Service, user: User) -> None:
    """The owner's second database of a name is refused, on another server too; another owner's is not."""
    create(user, make_server(user))
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        create(user, make_server(user, "other"))
    assert refusal.metadata == {"resource_type": "database", "field": "name"}
    other = service.new_user()
    create(other, make_server(other))


def test_names_that_differ_at_all_are_different(user: User) -> None:
    """Letter case, spaces at either end and accents all count."""
    server = make_server(user)
    names = ["papers", "Papers", "papers ", " papers", "pápers"]
    for name in names:
        create(user, server, name)
    assert _names(user) == names[::-1]


def test_an_admin_creates_for_another_on_the_others_server(service: Service, user: User) -> None:
    """With `owner_id` the server and the database are the other's; nobody else may send it."""
    database = pb.Database(server_id=make_server(user), name="papers")
    request = pb.CreateDatabaseRequest(database=database, owner_id=user.id)
    created = service.admin.channel.databases.CreateDatabase(request)
    assert created.owner_id == user.id
    assert get(user, created.id) == created
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        service.new_user().channel.databases.CreateDatabase(request)


def test_others_find_nothing_and_a_viewer_changes_nothing(service: Service, user: User) -> None:
    """A foreign database is not found; a VIEWER may not write; an ADMIN may."""
    created = create(user, make_server(user))
    stranger, viewer = service.new_user(), service.new_user("VIEWER")
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        get(stranger, created.id)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        update(stranger, pb.Database(id=created.id, name="stolen"))
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        create(viewer, created.server_id)
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        update(viewer, created)
    changed = update(service.admin, pb.Database(id=created.id, name="by admin"))
    assert get(service.admin, created.id) == changed == get(user, created.id)


def test_only_the_masked_fields_change(user: User) -> None:
    """Null can be written to the description; what the mask does not name stays."""
    old = create(user, make_server(user), description="old")
    assert update(user, pb.Database(id=old.id, name="renamed", description="x"), "name").description == "old"
    cleared = update(user, pb.Database(id=old.id, name="x"), "description")
    assert (cleared.name, cleared.description) == ("renamed", "")
    whole = update(user, pb.Database(id=old.id, name="whole", server_id=str(uuid.uuid4())), "*")
    assert (whole.name, whole.server_id) == ("whole", old.server_id)
    assert len({old.etag, cleared.etag, whole.etag}) == 3
    assert update(user, pb.Database(id=old.id)) == whole
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "database.name"):
        update(user, pb.Database(id=old.id), "name")


@pytest.mark.parametrize(
    "path",
    [
        *("id", "owner_id", "server_id", "document_count", "content_update_time"),
        *("etag", "create_time", "update_time", "nonsense", "name.x"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(user: User, path: str) -> None:
    """A database stays on its server, and its count is not for clients to set."""
    old = create(user, make_server(user))
    changes = pb.Database(id=old.id, name="new", server_id=make_server(user, "other"), document_count=3)
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        update(user, changes, path)
    assert get(user, old.id) == old


def test_an_old_etag_aborts(user: User) -> None:
    """The etag that was read guards the change."""
    read = create(user, make_server(user))
    changed = update(user, pb.Database(id=read.id, etag=read.etag, name="first"))
    with refused("ABORTED", "ETAG_MISMATCH"):
        update(user, pb.Database(id=read.id, etag=read.etag, name="second"))
    assert get(user, read.id) == changed


def test_a_taken_name_is_refused_on_update(user: User) -> None:
    """The constraint holds for changes as for creates."""
    server = make_server(user)
    create(user, server, "one")
    two = create(user, server, "two")
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        update(user, pb.Database(id=two.id, name="one"))
    assert update(user, pb.Database(id=two.id, name="One")).name == "One"


def test_repeated_request_ids_run_once(user: User) -> None:
    """A repeated create or update gives the database as it is now; with another body it is refused."""
    database = pb.Database(server_id=make_server(user), name="papers")
    request = pb.CreateDatabaseRequest(database=database, request_id="create-1")
    created = user.channel.databases.CreateDatabase(request)
    changed = update(user, pb.Database(id=created.id, name="first"), "name", request_id="update-1")
    later = update(user, pb.Database(id=created.id, name="later"))
    assert later != changed
    repeat, call = user.channel.databases.CreateDatabase.with_call(request)
    assert repeat == later
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    assert update(user, pb.Database(id=created.id, name="first"), "name", request_id="update-1") == later
    request.database.name = "other"
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        user.channel.databases.CreateDatabase(request)


def test_lists_filter_by_server_and_name(service: Service, user: User) -> None:
    """The filters combine; the name is a part as it is written, with no wildcards."""
    one, two = make_server(user, "one"), make_server(user, "two")
    for server, name in ((one, "Papers 1"), (one, "notes_1"), (two, "papers 2")):
        create(user, server, name)
    assert _names(user) == ["papers 2", "notes_1", "Papers 1"]
    assert _names(user, server_id=one) == ["notes_1", "Papers 1"]
    assert _names(user, name_contains="apers") == ["papers 2", "Papers 1"]
    assert _names(user, name_contains="Papers") == ["Papers 1"]
    assert _names(user, name_contains="_") == ["notes_1"]
    assert _names(user, server_id=one, name_contains="p") == ["Papers 1"]
    assert _names(user, server_id=str(uuid.uuid4())) == []
    assert _names(service.new_user(), server_id=one) == []
    assert _names(service.admin, server_id=one, owner_id="-") == ["notes_1", "Papers 1"]


@pytest.mark.parametrize(
    ("request_", "violation"),
    [
        ({"page_size": -1}, "page_size"),
        ({"server_id": "one"}, "server_id"),
        ({"name_contains": "x" * 256}, "name_contains"),
        ({"owner_id": "me"}, "owner_id"),
    ],
)
def test_a_filter_beyond_its_limit_is_refused(user: User, request_: dict[str, Any], violation: str) -> None:
    """INVALID_ARGUMENT names the field."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        _list(user, **request_)


def test_pages_hold_every_database_once_newest_first(service: Service, user: User) -> None:
    """A page goes on where the last one stopped, for the same caller, method and filters alone."""
    server = make_server(user)
    for number in range(5):
        create(user, server, f"d{number}")
    first = _list(user, page_size=2, server_id=server)
    assert [database.name for database in first.databases] == ["d4", "d3"]
    token = first.next_page_token
    second = _list(user, page_size=3, server_id=server, page_token=token)
    assert [database.name for database in second.databases] == ["d2", "d1", "d0"]
    assert second.next_page_token == ""
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        _list(user, page_token=token)
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        _list(service.new_user(), server_id=server, page_token=token)
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        user.channel.servers.ListServers(servers_pb2.ListServersRequest(page_token=token))


def test_users_see_their_own_and_an_admin_whom_they_name(service: Service, user: User) -> None:
    """A list shows the caller's rows; another owner or everybody is for an ADMIN to ask for."""
    create(user, make_server(user))
    admin = service.new_user("ADMIN")
    assert _names(admin) == []
    assert _names(admin, owner_id=user.id) == ["papers"]
    assert _names(admin, owner_id="-", page_size=1) == ["papers"]
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        _list(user, owner_id="-")
