"""CreateServer and GetServer over the wire: what is kept, for whom, and what is refused."""

from __future__ import annotations

import datetime as dt
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from moragmeta.v1 import servers_pb2 as pb
from tests.refusals import refused
from tests.servers.conftest import a_server, create, get
from tests.service import Service, User

CONNECTED = dt.datetime(2026, 2, 3, 4, 5, 6, 789_012, tzinfo=dt.UTC)


def _config(value: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(value)
    return struct


def _nested(levels: int) -> Struct:
    inner: Any = "leaf"
    for _ in range(levels - 1):
        inner = {"k": inner}
    return _config({"k": inner})


def test_everything_that_is_sent_is_kept_but_the_secrets_are_not_shown(user: User) -> None:
    """A server with every field comes back as it was sent, with flags in place of its secrets."""
    time = Timestamp()
    time.FromDatetime(CONNECTED)
    sent = a_server(
        kind=pb.SERVER_KIND_WEAVIATE,
        username="jo",
        password="s3cret",
        api_key="k3y",
        default_database="main",
        default_collection="chunks",
        active=True,
        last_connect_time=time,
        config=_config({"tls": True, "retries": 3, "nodes": ["a", "b"], "note": "ä😀", "none": None}),
    )
    created = user.channel.servers.CreateServer(pb.CreateServerRequest(server=sent))
    expected = pb.Server()
    expected.CopyFrom(sent)
    expected.MergeFrom(
        pb.Server(
            id=created.id,
            owner_id=user.id,
            has_password=True,
            has_api_key=True,
            etag=created.etag,
            create_time=created.create_time,
            update_time=created.create_time,
        )
    )
    expected.ClearField("password")
    expected.ClearField("api_key")
    assert created == expected
    assert uuid.UUID(created.id).version == 7
    assert created.etag
    assert get(user, created.id) == created


def test_what_is_left_out_has_its_default(user: User) -> None:
    """A server is inactive, never connected, without secrets and with an empty config, unless said."""
    created = create(user)
    assert created.active is False
    assert not created.has_password
    assert not created.has_api_key
    assert created.config == Struct()
    for name in ("username", "default_database", "default_collection", "last_connect_time"):
        assert not created.HasField(name)


def test_an_empty_text_is_the_same_as_none(user: User) -> None:
    """Empty optional texts and secrets count as absent."""
    created = create(user, username="", password="", api_key="", default_database="")
    assert not created.HasField("username")
    assert not created.HasField("default_database")
    assert not created.has_password
    assert not created.has_api_key


def test_output_only_fields_are_ignored(user: User) -> None:
    """A client cannot choose the id, the owner, the times or the flags."""
    created = create(user, id="anything", owner_id="somebody", has_password=True, etag='"7"')
    assert created.id != "anything"
    assert created.owner_id == user.id
    assert not created.has_password
    assert created.etag != '"7"'


@pytest.mark.parametrize("kind", [kind for kind in pb.ServerKind.values() if kind])
def test_every_kind_is_kept(user: User, kind: pb.ServerKind.ValueType) -> None:
    """All five kinds go in and come out."""
    assert get(user, create(user, kind=kind).id).kind == kind


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"name": ""}, "server.name"),
        ({"name": "x" * 256}, "server.name"),
        ({"name": "a\x00b"}, "server.name"),
        ({"kind": pb.SERVER_KIND_UNSPECIFIED}, "server.kind"),
        ({"kind": 99}, "server.kind"),
        ({"host": ""}, "server.host"),
        ({"host": "x" * 256}, "server.host"),
        ({"host": "two words"}, "server.host"),
        ({"host": "line\nbreak"}, "server.host"),
        ({"host": "müller.example"}, "server.host"),
        ({"port": 0}, "server.port"),
        ({"port": -1}, "server.port"),
        ({"port": 65_536}, "server.port"),
        ({"username": "x" * 256}, "server.username"),
        ({"username": "a\x00"}, "server.username"),
        ({"password": "x" * 256}, "server.password"),
        ({"password": "a\x00"}, "server.password"),
        ({"api_key": "x" * 501}, "server.api_key"),
        ({"default_database": "x" * 256}, "server.default_database"),
        ({"default_collection": "x" * 256}, "server.default_collection"),
        ({"last_connect_time": Timestamp(seconds=-1)}, "server.last_connect_time"),
        ({"last_connect_time": Timestamp(seconds=4_000_000_000)}, "server.last_connect_time"),
        ({"last_connect_time": Timestamp(seconds=10**15)}, "server.last_connect_time"),
        ({"last_connect_time": Timestamp(nanos=-1)}, "server.last_connect_time"),
        ({"config": _config({"k": "x" * 65_536})}, "server.config"),
        ({"config": _nested(17)}, "server.config"),
        ({"config": _config({"k": float("nan")})}, "server.config"),
        ({"config": _config({"k": float("inf")})}, "server.config"),
        ({"config": _config({"k": "a\x00"})}, "server.config"),
        ({"config": _config({"\x00": 1})}, "server.config"),
    ],
)
def test_a_field_beyond_its_limit_is_refused_by_name(
    user: User, fields: dict[str, Any], violation: str
) -> None:
    """Each limit of the proto answers INVALID_ARGUMENT naming the field, and nothing is made."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        create(user, **fields)
    assert not user.channel.servers.ListServers(pb.ListServersRequest()).servers


def test_values_at_their_limits_are_kept(user: User) -> None:
    """The longest and deepest that is allowed is taken, counted in characters and not in bytes."""
    fields: dict[str, Any] = {
        "name": "😀" * 255,
        "host": "x" * 255,
        "port": 65_535,
        "username": "ä" * 255,
        "password": "€" * 255,
        "api_key": "k" * 500,
        "default_database": "d" * 255,
        "config": _nested(16),
    }
    created = create(user, **fields)
    for name in ("name", "host", "port", "username", "default_database", "config"):
        assert getattr(created, name) == fields[name]
    large = _config({"k": "x" * (65_536 - len('{"k":""}'))})
    assert create(user, name="large", port=1, config=large).config == large


def test_a_request_without_a_server_is_refused(user: User) -> None:
    """The resource is required."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server"):
        user.channel.servers.CreateServer(pb.CreateServerRequest())


def test_a_name_is_taken_once_per_owner(service: Service, user: User) -> None:
    """The owner's second server of a name is refused; another owner's is not."""
    create(user)
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        create(user)
    assert refusal.metadata == {"resource_type": "server", "field": "name"}
    create(service.new_user())


def test_names_that_differ_at_all_are_different(user: User) -> None:
    """Letter case, spaces at either end and accents all count."""
    names = ["main", "Main", "MAIN", "main ", " main", "maín", "mai\u0301n"]
    for name in names:
        create(user, name=name)
    listed = user.channel.servers.ListServers(pb.ListServersRequest()).servers
    assert [server.name for server in listed] == names[::-1]


@pytest.mark.parametrize(
    "name",
    [
        "x' for key 'PRIMARY",
        "x' for key 'uq_users__email'",
        "UNIQUE constraint failed: users.email",
        "x' for key 'PRIMARY' and \"more\"",
        "'\" for key 'request_records.PRIMARY" + "x" * 200,
    ],
)
def test_no_name_passes_for_words_of_the_database(user: User, name: str) -> None:
    """A taken name is told as what it is, whatever a database's complaint about it would read like."""
    create(user, name=name)
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        create(user, name=name)
    assert refusal.metadata.items() >= {"resource_type": "server", "field": "name"}.items()


def test_of_many_creates_at_once_with_one_name_one_wins(user: User) -> None:
    """The constraint decides, also when nobody sees the others coming."""

    def attempt(_: int) -> str:
        try:
            return create(user, name="wanted").id
        except grpc.RpcError as error:
            return str(error.code().name)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, range(16)))
    assert answers.count("ALREADY_EXISTS") == 15


def test_an_admin_creates_for_another_and_nobody_else_does(service: Service, user: User) -> None:
    """The owner's field is an ADMIN's alone, also when it names a user that does not exist."""
    request = pb.CreateServerRequest(server=a_server(), owner_id=user.id)
    created = service.admin.channel.servers.CreateServer(request)
    assert created.owner_id == user.id
    assert get(user, created.id) == created
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        service.new_user().channel.servers.CreateServer(request)
    nobody = pb.CreateServerRequest(server=a_server(), owner_id=str(uuid.uuid4()))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        service.admin.channel.servers.CreateServer(nobody)
    assert refusal.metadata["resource_type"] == "user"


def test_a_viewer_reads_and_creates_nothing(service: Service) -> None:
    """A VIEWER lists what is theirs, and may not add to it."""
    viewer = service.new_user("VIEWER")
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        create(viewer)
    assert not viewer.channel.servers.ListServers(pb.ListServersRequest()).servers


def test_what_is_another_users_answers_as_what_does_not_exist(service: Service, user: User) -> None:
    """Another USER gets the same words for a foreign id and for one that was never made; an ADMIN gets it."""
    created = create(user)
    stranger = service.new_user()
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as foreign:
        get(stranger, created.id)
    missing_id = str(uuid.uuid4())
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as missing:
        get(stranger, missing_id)
    assert foreign.message.replace(created.id, "") == missing.message.replace(missing_id, "")
    assert get(service.admin, created.id) == created


@pytest.mark.parametrize(
    "id", ["", "x", "-", "me", "A" * 36, "0190c42e-0000-7000-8000-00000000000G", "a\x00"]
)
def test_an_id_that_is_none_is_refused(user: User, id: str) -> None:
    """Only a UUID in lower case is looked for."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "id"):
        get(user, id)


def test_a_repeated_request_id_creates_once(service: Service, user: User) -> None:
    """The repeat answers with the server as it is now and says so; the id is the caller's alone."""
    request = pb.CreateServerRequest(server=a_server(password="s3cret"), request_id="create-1")
    first = user.channel.servers.CreateServer(request)
    renamed = pb.Server(id=first.id, name="renamed")
    user.channel.servers.UpdateServer(pb.UpdateServerRequest(server=renamed))
    repeat, call = user.channel.servers.CreateServer.with_call(request)
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    assert (repeat.id, repeat.name, repeat.password) == (first.id, "renamed", "")
    assert service.new_user().channel.servers.CreateServer(request).id != first.id


def test_a_request_id_with_another_body_is_refused(user: User) -> None:
    """The same id for something else is a mistake of the client, and nothing is made."""
    request = pb.CreateServerRequest(server=a_server(), request_id="create-1")
    user.channel.servers.CreateServer(request)
    request.server.name = "other"
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        user.channel.servers.CreateServer(request)
    assert len(user.channel.servers.ListServers(pb.ListServersRequest()).servers) == 1


@pytest.mark.parametrize("request_id", ["x" * 65, "two words", "ä"])
def test_a_request_id_that_is_no_token_is_refused(user: User, request_id: str) -> None:
    """At most 64 visible ASCII characters."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "request_id"):
        user.channel.servers.CreateServer(pb.CreateServerRequest(server=a_server(), request_id=request_id))


def test_repeats_at_once_create_once(user: User) -> None:
    """Eight calls under one request id at the same time make one server, and all answer with it."""
    request = pb.CreateServerRequest(server=a_server(), request_id="at-once")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: user.channel.servers.CreateServer(request).id, range(8)))
    assert len(set(made)) == 1
