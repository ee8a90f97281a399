"""API keys over the wire: made once shown, bounded, changed, revoked, counted."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.auth.principal import Role
from morag_meta.db.database import Database
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import options_pb2, servers_pb2, users_pb2
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Channel, Service, User, serving

ME = users_pb2.GetUserRequest(id="me")


def _in(seconds: float) -> Timestamp:
    time_ = Timestamp()
    time_.FromDatetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds))
    return time_


def _create(
    channel: Channel, name: str = "new", *, owner_id: str = "", request_id: str = "", **fields: Any
) -> pb.CreateApiKeyResponse:
    return channel.api_keys.CreateApiKey(
        pb.CreateApiKeyRequest(
            api_key=pb.ApiKey(name=name, **fields), owner_id=owner_id, request_id=request_id
        )
    )


def _update(channel: Channel, id: str, *paths: str, **fields: Any) -> pb.ApiKey:
    return channel.api_keys.UpdateApiKey(
        pb.UpdateApiKeyRequest(api_key=pb.ApiKey(id=id, **fields), update_mask=FieldMask(paths=paths))
    )


def _names(channel: Channel, **filters: Any) -> list[str]:
    return [key.name for key in channel.api_keys.ListApiKeys(pb.ListApiKeysRequest(**filters)).api_keys]


def test_new_key_is_shown_once_and_works(service: Service, user: User) -> None:
    """The answer of the creation holds the secret in the documented form; nothing else ever does."""
    end = _in(3600)
    made = _create(
        user.channel, "laptop", description="mine", scopes=["jobs:read", "users:read"], expire_time=end
    )
    assert re.fullmatch(r"morag_[A-Za-z0-9_-]{43}", made.secret)
    key = made.api_key
    assert (key.owner_id, key.name, key.description) == (user.id, "laptop", "mine")
    assert (key.key_prefix, key.state) == (made.secret[:12], pb.API_KEY_STATE_ACTIVE)
    assert list(key.scopes) == ["jobs:read", "users:read"]
    assert key.expire_time.ToMicroseconds() == end.ToMicroseconds()
    assert not key.HasField("last_used_time")
    assert user.channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=key.id)) == key
    assert service.channel(api_key=made.secret).users.GetUser(ME).id == user.id
    assert service.channel(token=made.secret).users.GetUser(ME).id == user.id


def test_repeated_creation_has_no_secret(user: User) -> None:
    """A repeat under the request id answers the same key, says that it is a repeat, and hides the secret."""
    first = _create(user.channel, "once", request_id="key-once")
    request = pb.CreateApiKeyRequest(api_key=pb.ApiKey(name="once"), request_id="key-once")
    again, call = user.channel.api_keys.CreateApiKey.with_call(request)
    assert (again.api_key, again.secret) == (first.api_key, "")
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    assert _names(user.channel).count("once") == 1


def test_key_does_what_its_scopes_say(service: Service, user: User) -> None:
    """A key with a scope may call its methods and no others; the answer names the missing scope."""
    reader = service.channel(api_key=_create(user.channel, scopes=["users:read"]).secret)
    assert reader.users.GetUser(ME).id == user.id
    with refused("PERMISSION_DENIED", "SCOPE_MISSING") as refusal:
        reader.servers.ListServers(servers_pb2.ListServersRequest())
    assert refusal.metadata == {"required_scope": "servers:read"}
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        reader.users.UpdateUser(users_pb2.UpdateUserRequest(user=users_pb2.User(id="me", name="Other")))


def test_key_never_does_more_than_its_owner(service: Service) -> None:
    """A key of every scope shrinks with its owner's role and grows with it."""
    user = service.new_user(Role.ADMIN)
    secret = _create(user.channel, "all").secret
    channel = service.channel(api_key=secret)
    channel.users.ListUsers(users_pb2.ListUsersRequest())
    service.admin.channel.users.SetUserRole(
        users_pb2.SetUserRoleRequest(id=user.id, role=options_pb2.ROLE_VIEWER)
    )
    channel.users.GetUser(ME)
    for refusal in (
        lambda: channel.users.ListUsers(users_pb2.ListUsersRequest()),
        lambda: _create(channel, "more"),
    ):
        with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
            refusal()


def test_scopes_stay_within_the_owners_role(service: Service) -> None:
    """For a VIEWER an ADMIN can make a key that reads, and none with a scope that writes."""
    viewer = service.new_user(Role.VIEWER)
    made = _create(service.admin.channel, owner_id=viewer.id, scopes=["jobs:read"])
    assert made.api_key.owner_id == viewer.id
    assert service.channel(api_key=made.secret).users is not None
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED") as refusal:
        _create(service.admin.channel, "other", owner_id=viewer.id, scopes=["jobs:write"])
    assert refusal.metadata == {"scope": "jobs:write"}


def test_key_made_by_a_key_holds_no_more(service: Service, user: User) -> None:
    """By way of a bounded key nobody gets a wider or a longer one, neither made nor changed."""
    bounded = _create(
        user.channel,
        "bounded",
        scopes=["api_keys:write", "api_keys:read", "jobs:read"],
        expire_time=_in(3600),
    )
    wide = _create(user.channel, "wide").api_key
    channel = service.channel(api_key=bounded.secret)
    narrow = _create(channel, "narrow", scopes=["jobs:read"], expire_time=_in(60)).api_key
    for scopes in ([], ["*"], ["jobs:read", "jobs:write"]):
        for call in (
            lambda scopes=scopes: _create(channel, "wider", scopes=scopes, expire_time=_in(60)),
            lambda scopes=scopes: _update(channel, narrow.id, "scopes", scopes=scopes),
        ):
            with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
                call()
    longer: list[dict[str, Any]] = [{}, {"expire_time": _in(7200)}]
    for fields in longer:
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.expire_time"):
            _create(channel, "longer", scopes=["jobs:read"], **fields)
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.expire_time"):
            _update(channel, narrow.id, "expire_time", **fields)
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
        _update(channel, wide.id, "expire_time", expire_time=_in(60))
    assert _update(channel, wide.id, "name", name="renamed").name == "renamed"
    assert user.channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=narrow.id)) == narrow


def test_names_are_unique_per_owner(service: Service, user: User) -> None:
    """A name is taken within its owner, case counting, until its key is deleted; a revoked key keeps it."""
    made = _create(user.channel, "laptop").api_key
    _create(user.channel, "Laptop")
    _create(service.new_user().channel, "laptop")
    user.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=made.id))
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        _create(user.channel, "laptop")
    assert refusal.metadata == {"resource_type": "api_key", "field": "name"}
    user.channel.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=made.id))
    other = _create(user.channel, "laptop").api_key
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        _update(user.channel, other.id, "name", name="Laptop")


def test_update_of_nothing_changes_nothing(user: User) -> None:
    """An update that names no field and holds none answers the key with the same etag."""
    key = user.channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=user.key_id))
    assert _update(user.channel, user.key_id).etag == key.etag


def test_change_of_scopes_holds_at_once(service: Service, user: User) -> None:
    """A key that loses a scope is refused with its next call, and one that gains a scope is let through."""
    made = _create(user.channel, scopes=["servers:read"])
    channel = service.channel(api_key=made.secret)
    channel.servers.ListServers(servers_pb2.ListServersRequest())
    _update(user.channel, made.api_key.id, "scopes", scopes=["users:read"])
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        channel.servers.ListServers(servers_pb2.ListServersRequest())
    cleared = _update(user.channel, made.api_key.id, "scopes")
    assert list(cleared.scopes) == ["*"]
    channel.servers.ListServers(servers_pb2.ListServersRequest())


def test_key_expires_and_can_be_given_more_time(service: Service, user: User) -> None:
    """After its end a key is refused and EXPIRED; a later end, or none, makes it work again at once."""
    made = _create(user.channel, expire_time=_in(1.5))
    channel = service.channel(api_key=made.secret)
    channel.users.GetUser(ME)
    time.sleep(1.6)
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        channel.users.GetUser(ME)
    get = pb.GetApiKeyRequest(id=made.api_key.id)
    assert user.channel.api_keys.GetApiKey(get).state == pb.API_KEY_STATE_EXPIRED
    assert "new" in _names(user.channel)
    unending = _update(user.channel, made.api_key.id, "expire_time")
    assert (unending.state, unending.HasField("expire_time")) == (pb.API_KEY_STATE_ACTIVE, False)
    channel.users.GetUser(ME)


def test_revoked_key_is_refused_at_once_and_for_good(service: Service, user: User) -> None:
    """A revoke holds for the next call, is idempotent, hides the key from lists, and allows no change."""
    made = _create(user.channel)
    channel = service.channel(api_key=made.secret)
    channel.users.GetUser(ME)
    request = pb.RevokeApiKeyRequest(id=made.api_key.id)
    revoked = user.channel.api_keys.RevokeApiKey(request)
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        channel.users.GetUser(ME)
    assert revoked.state == pb.API_KEY_STATE_REVOKED
    assert revoked.HasField("revoke_time")
    assert user.channel.api_keys.RevokeApiKey(request) == revoked
    assert user.channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=made.api_key.id)) == revoked
    assert "new" not in _names(user.channel)
    assert "new" in _names(user.channel, show_revoked=True)
    for fields in ({"name": "other"}, {"expire_time": _in(60)}, {"scopes": ["jobs:read"]}):
        with refused("FAILED_PRECONDITION", "INVALID_STATE") as refusal:
            _update(user.channel, made.api_key.id, *fields, **fields)
        assert refusal.metadata == {"resource_type": "api_key", "state": "REVOKED"}


def test_key_can_end_itself(service: Service, user: User) -> None:
    """A key may revoke or delete itself, and is refused from then on."""
    for end in ("RevokeApiKey", "DeleteApiKey"):
        made = _create(user.channel, end)
        channel = service.channel(api_key=made.secret)
        getattr(channel.api_keys, end)(getattr(pb, f"{end}Request")(id=made.api_key.id))
        with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
            channel.users.GetUser(ME)


def test_deleted_key_is_gone(service: Service, user: User) -> None:
    """A deleted key is refused and NOT_FOUND; only a repeat under the request id succeeds."""
    made = _create(user.channel)
    request = pb.DeleteApiKeyRequest(id=made.api_key.id, request_id="delete-once")
    user.channel.api_keys.DeleteApiKey(request)
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        service.channel(api_key=made.secret).users.GetUser(ME)
    _, call = user.channel.api_keys.DeleteApiKey.with_call(request)
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    request.request_id = ""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        user.channel.api_keys.DeleteApiKey(request)


def test_foreign_keys_are_as_good_as_missing(service: Service, user: User) -> None:
    """Another's key and no key answer alike to everything; an ADMIN reaches both users' keys."""
    foreign = service.new_user().key_id
    texts = set()
    for id in (foreign, "00000000-0000-7000-8000-000000000000"):
        for call in (
            lambda id=id: user.channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=id)),
            lambda id=id: _update(user.channel, id, "name", name="mine now"),
            lambda id=id: user.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=id)),
            lambda id=id: user.channel.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=id)),
        ):
            with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
                call()
            texts.add(refusal.message.replace(id, "ID"))
    assert len(texts) == 1
    admin = service.admin.channel
    assert admin.api_keys.GetApiKey(pb.GetApiKeyRequest(id=foreign)).id == foreign
    admin.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=foreign))


def test_owner_is_named_by_admins_alone(service: Service, user: User) -> None:
    """An ADMIN makes and lists keys of others, of all with ``-``; anybody else may not name an owner."""
    other = service.new_user()
    for request in (other.id, "-"):
        with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
            _names(user.channel, owner_id=request)
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        _create(user.channel, owner_id=other.id)
    admin = service.admin.channel
    made = _create(admin, "for other", owner_id=other.id)
    assert service.channel(api_key=made.secret).users.GetUser(ME).id == other.id
    assert _names(admin, owner_id=other.id) == ["for other", "test"]
    assert "for other" not in _names(admin)
    assert "for other" in _names(admin, owner_id="-", page_size=1000)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        _create(admin, owner_id="00000000-0000-7000-8000-000000000000")
    assert refusal.metadata["resource_type"] == "user"


def test_list_pages_newest_first(user: User) -> None:
    """Pages of one give every key once, newest first."""
    for number in range(3):
        _create(user.channel, f"key {number}")
    names, token = [], ""
    while True:
        page = user.channel.api_keys.ListApiKeys(pb.ListApiKeysRequest(page_size=1, page_token=token))
        names += [key.name for key in page.api_keys]
        token = page.next_page_token
        if not token:
            break
    assert names == ["key 2", "key 1", "key 0", "test"]


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"name": ""}, "api_key.name"),
        ({"name": "x" * 256}, "api_key.name"),
        ({"name": " padded"}, "api_key.name"),
        ({"description": "x" * 501}, "api_key.description"),
        ({"scopes": ["jobs:fly"]}, "api_key.scopes"),
        ({"scopes": ["jobs:read"] * 101}, "api_key.scopes"),
        ({"scopes": ["x" * 65]}, "api_key.scopes[0]"),
        ({"expire_time": Timestamp(seconds=1)}, "api_key.expire_time"),
        ({"expire_time": Timestamp(seconds=10**15)}, "api_key.expire_time"),
    ],
)
def test_bad_fields_are_named(user: User, fields: dict[str, Any], violation: str) -> None:
    """A value beyond its limit is INVALID_ARGUMENT with the path of its field, in a creation and a change."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        _create(user.channel, **{"name": "new", **fields})
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        _update(user.channel, user.key_id, *fields, **fields)


@pytest.mark.parametrize("path", ["id", "owner_id", "state", "key_prefix", "key_hash", "use_count"])
def test_mask_reaches_only_what_can_be_written(user: User, path: str) -> None:
    """What the server sets cannot be named in a mask."""
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        _update(user.channel, user.key_id, path)


def test_etag_guards_every_change(user: User) -> None:
    """A change with an old etag is ABORTED, and the use of a key does not make its etag old."""
    old = _create(user.channel).api_key
    new = _update(user.channel, old.id, "description", description="changed", etag=old.etag)
    assert new.etag != old.etag
    for call in (
        lambda: _update(user.channel, old.id, "name", name="again", etag=old.etag),
        lambda: user.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=old.id, etag=old.etag)),
        lambda: user.channel.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=old.id, etag=old.etag)),
    ):
        with refused("ABORTED", "ETAG_MISMATCH"):
            call()


def test_use_is_counted_behind_the_calls(backend: Backend) -> None:
    """Calls are counted, refused ones by the method's rules included, and shown a little later."""
    with serving(backend, api_key_usage_interval=0.1) as service:
        user, admin = service.new_user(), service.admin.channel
        before = admin.api_keys.GetApiKey(pb.GetApiKeyRequest(id=user.key_id))
        for _ in range(7):
            user.channel.users.GetUser(ME)
        deadline = time.monotonic() + 5
        while True:
            after = admin.api_keys.GetApiKey(pb.GetApiKeyRequest(id=user.key_id))
            if after.use_count == 7 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    assert after.use_count == 7
    assert after.last_used_time.ToNanoseconds() >= before.create_time.ToNanoseconds()
    assert after.etag == before.etag


def test_drain_writes_what_was_counted(backend: Backend) -> None:
    """An orderly end writes the last uses, however long the interval is."""
    url = backend.new_url()
    service = Service(url, backend.name, api_key_usage_interval=3600)
    user = service.new_user()
    user.channel.users.GetUser(ME)
    service.close()
    database = Database.open(url)
    with database.unit_of_work() as uow:
        assert uow.api_keys.get(user.id, user.key_id)["use_count"] == 1
    database.close()
    backend.drop(url)
