"""UpdateServer over the wire: masks, etags, secrets and who may."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from morag_meta.auth.credentials import CredentialRing
from morag_meta.servers.secrets import reveal
from moragmeta.v1 import servers_pb2 as pb
from tests.refusals import refused
from tests.servers.conftest import a_server, create, get, update
from tests.service import CREDENTIAL_KEYS, Service, User

RING = CredentialRing.parse(CREDENTIAL_KEYS)


def _secrets(service: Service, server: pb.Server) -> dict[str, str | None]:
    with service.database.unit_of_work() as uow:
        return reveal(RING, uow.servers.get(server.owner_id, server.id))


def _same_but_for_the_change(old: pb.Server, new: pb.Server) -> None:
    stripped = []
    for server in (old, new):
        copy = pb.Server()
        copy.CopyFrom(server)
        copy.ClearField("etag")
        copy.ClearField("update_time")
        stripped.append(copy)
    assert stripped[0] == stripped[1]


def test_only_the_masked_fields_change(user: User) -> None:
    """What the mask does not name stays, whatever the message holds."""
    old = create(user, username="jo", default_database="main", active=True)
    changes = a_server(id=old.id, name="renamed", host="other", port=1, username="ann", active=False)
    new = update(user, changes, "name", "active")
    assert (new.name, new.active) == ("renamed", False)
    assert new.etag != old.etag
    assert new.update_time.ToDatetime() > old.update_time.ToDatetime()
    expected = pb.Server()
    expected.CopyFrom(new)
    expected.name, expected.active = old.name, old.active
    _same_but_for_the_change(expected, old)
    assert get(user, old.id) == new


def test_without_a_mask_the_populated_fields_change(user: User) -> None:
    """Absent means every populated field, so an absent or false one stays."""
    old = create(user, username="jo", active=True)
    new = update(user, pb.Server(id=old.id, name="renamed", port=9))
    assert (new.name, new.port, new.username, new.active, new.host) == ("renamed", 9, "jo", True, old.host)


def test_an_update_of_nothing_changes_nothing(user: User) -> None:
    """Without a populated field there is no new revision."""
    old = create(user)
    assert update(user, pb.Server(id=old.id)) == old


def test_a_masked_field_that_is_not_set_is_cleared(service: Service, user: User) -> None:
    """Null can be written to every field that may be absent, secrets among them."""
    old = create(user, username="jo", password="p", api_key="k", default_database="d", default_collection="c")
    old.config.update({"tls": True})
    old.last_connect_time.GetCurrentTime()
    update(user, old, "config", "last_connect_time")
    cleared = (
        *("username", "password", "api_key", "default_database"),
        *("default_collection", "config", "last_connect_time"),
    )
    new = update(user, pb.Server(id=old.id), *cleared)
    for name in ("username", "default_database", "default_collection", "last_connect_time"):
        assert not new.HasField(name)
    assert (new.has_password, new.has_api_key, len(new.config.fields)) == (False, False, 0)
    assert _secrets(service, new) == {"password": None, "api_key": None}


def test_a_star_writes_every_field(service: Service, user: User) -> None:
    """`*` replaces the whole server, so what is not sent is cleared."""
    old = create(user, username="jo", password="p", active=True)
    new = update(user, a_server(id=old.id, name="whole", api_key="k"), "*")
    _same_but_for_the_change(
        new,
        a_server(
            id=old.id,
            owner_id=user.id,
            name="whole",
            has_api_key=True,
            config=new.config,
            create_time=old.create_time,
        ),
    )
    assert _secrets(service, new) == {"password": None, "api_key": "k"}


@pytest.mark.parametrize("name", ["name", "kind", "host", "port"])
def test_a_required_field_cannot_be_cleared(user: User, name: str) -> None:
    """Masked and not set, it is refused by its name; not masked, it is not asked for."""
    old = create(user)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"server.{name}"):
        update(user, pb.Server(id=old.id), name)
    assert get(user, old.id) == old


@pytest.mark.parametrize(
    "path",
    [
        *("id", "owner_id", "has_password", "has_api_key", "etag", "create_time", "update_time"),
        *("nonsense", "config.tls", "server.name", "Name", "", " name"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(user: User, path: str) -> None:
    """Output-only and unknown fields, and parts of a field, have no place in a mask."""
    old = create(user)
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        update(user, a_server(id=old.id), "name", path)
    assert get(user, old.id) == old


def test_the_limits_hold_for_masked_fields_only(user: User) -> None:
    """A value beyond its limit is refused where it would be written."""
    old = create(user)
    changes = pb.Server(id=old.id, name="new", host="two words", port=70_000)
    assert update(user, changes, "name").name == "new"
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.host", "server.port"):
        update(user, changes, "host", "port")


def test_the_servers_own_rules_hold_for_changes(user: User) -> None:
    """A connection in the future, no kind and a config too deep are refused as on create."""
    old = create(user)
    future = pb.Server(id=old.id)
    future.last_connect_time.FromSeconds(4_000_000_000)
    deep = pb.Server(id=old.id)
    inner = deep.config
    for _ in range(17):
        inner = inner.fields["k"].struct_value
    for changes, field in ((future, "last_connect_time"), (deep, "config")):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"server.{field}"):
            update(user, changes, field)
    assert get(user, old.id) == old


@pytest.mark.parametrize("id", ["", "x", "a\x00", "-"])
def test_an_update_names_a_server(user: User, id: str) -> None:
    """The id in the resource is required and must be a UUID."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.id"):
        update(user, pb.Server(id=id, name="new"))


def test_a_new_secret_replaces_the_old_one_and_other_changes_keep_it(service: Service, user: User) -> None:
    """A password is written when it is sent or masked, and only then."""
    server = create(user, password="first", api_key="key")
    update(user, pb.Server(id=server.id, name="renamed"), "name")
    assert _secrets(service, server) == {"password": "first", "api_key": "key"}
    update(user, pb.Server(id=server.id, password="second"))
    assert _secrets(service, server) == {"password": "second", "api_key": "key"}
    assert not update(user, pb.Server(id=server.id, password=""), "password").has_password
    assert _secrets(service, server) == {"password": None, "api_key": "key"}


def test_an_old_etag_aborts(user: User) -> None:
    """The etag that was read guards the change; without one the last writer wins."""
    read = create(user)
    changed = update(user, pb.Server(id=read.id, etag=read.etag, name="first"))
    for etag in (read.etag, "anything", '"0"'):
        with refused("ABORTED", "ETAG_MISMATCH"):
            update(user, pb.Server(id=read.id, etag=etag, name="second"))
    assert get(user, read.id) == changed
    assert update(user, pb.Server(id=read.id, name="third")).name == "third"


def test_of_changes_at_once_with_one_etag_one_wins(user: User) -> None:
    """Everybody else is told that they were late."""
    read = create(user)

    def attempt(number: int) -> str:
        try:
            return update(user, pb.Server(id=read.id, etag=read.etag, port=number + 1)).etag
        except grpc.RpcError as error:
            return str(error.code().name)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(8)))
    assert answers.count("ABORTED") == 7


def test_a_taken_name_is_refused_and_the_own_one_is_not(user: User) -> None:
    """A server may keep its name, and may not take another's."""
    one, two = create(user, name="one"), create(user, name="two")
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        update(user, pb.Server(id=two.id, name="one"))
    assert update(user, pb.Server(id=one.id, name="one")).name == "one"
    assert update(user, pb.Server(id=two.id, name="One")).name == "One"


def test_an_admin_changes_anybodys_server_and_others_do_not_find_it(service: Service, user: User) -> None:
    """The server stays its owner's; to another USER it does not exist; a VIEWER changes nothing."""
    server = create(user)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        update(service.new_user(), pb.Server(id=server.id, name="stolen"))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        update(user, pb.Server(id=str(uuid.uuid4()), name="none"))
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        update(service.new_user("VIEWER"), pb.Server(id=server.id, name="seen"))
    changed = update(service.admin, pb.Server(id=server.id, name="by admin", password="new"))
    assert (changed.owner_id, changed.name) == (user.id, "by admin")
    assert _secrets(service, server)["password"] == "new"


def test_a_repeated_update_runs_once(user: User) -> None:
    """The repeat gives the server as it is now, and undoes no later change."""
    server = create(user)
    change = pb.Server(id=server.id, name="first")
    update(user, change, "name", request_id="update-1")
    later = update(user, pb.Server(id=server.id, name="later"))
    assert update(user, change, "name", request_id="update-1") == later
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        update(user, pb.Server(id=server.id, name="else"), "name", request_id="update-1")
