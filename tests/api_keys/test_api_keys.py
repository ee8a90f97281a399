"""API keys over the wire: made once shown, listed, changed, expired, revoked, deleted."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from moragmeta.v1 import api_keys_pb2 as pb
from tests.api_keys.calls import ME, create, names_of, seconds_from_now, update
from tests.refusals import refused
from tests.service import Service, User


def test_new_key_is_shown_once_and_works(service: Service, user: User) -> None:
    """The answer of the creation holds the secret in the documented form; nothing else ever does."""
    end = seconds_from_now(3600)
    made = create(
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
    first = create(user.channel, "once", request_id="key-once")
    request = pb.CreateApiKeyRequest(api_key=pb.ApiKey(name="once"), request_id="key-once")
    again, call = user.channel.api_keys.CreateApiKey.with_call(request)
    assert (again.api_key, again.secret) == (first.api_key, "")
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    assert names_of(user.channel).count("once") == 1


def test_names_are_unique_per_owner(service: Service, user: User) -> None:
    """A name is taken within its owner, case and spaces counting, while a key that is not revoked has it."""
    made = create(user.channel, "laptop").api_key
    for free in ("Laptop", "laptop "):
        create(user.channel, free)
    create(service.new_user().channel, "laptop")
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS") as refusal:
        create(user.channel, "laptop")
    assert refusal.metadata == {"resource_type": "api_key", "field": "name"}
    user.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=made.id))
    second = create(user.channel, "laptop").api_key
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        create(user.channel, "laptop")
    user.channel.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=second.id))
    other = create(user.channel, "laptop").api_key
    assert names_of(user.channel, show_revoked=True).count("laptop") == 2
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS"):
        update(user.channel, other.id, "name", name="Laptop")


def test_update_of_nothing_changes_nothing(user: User) -> None:
    """An update that names no field and holds none answers the key with the same etag."""
    key = user.channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=user.key_id))
    assert update(user.channel, user.key_id).etag == key.etag


def test_key_expires_and_can_be_given_more_time(service: Service, user: User) -> None:
    """After its end a key is refused and EXPIRED; a later end, or none, makes it work again at once."""
    made = create(user.channel, expire_time=seconds_from_now(4))
    channel = service.channel(api_key=made.secret)
    channel.users.GetUser(ME)
    time.sleep(4.1)
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        channel.users.GetUser(ME)
    get = pb.GetApiKeyRequest(id=made.api_key.id)
    assert user.channel.api_keys.GetApiKey(get).state == pb.API_KEY_STATE_EXPIRED
    assert "new" in names_of(user.channel)
    unending = update(user.channel, made.api_key.id, "expire_time")
    assert (unending.state, unending.HasField("expire_time")) == (pb.API_KEY_STATE_ACTIVE, False)
    channel.users.GetUser(ME)


def test_revoked_key_is_refused_at_once_and_for_good(service: Service, user: User) -> None:
    """A revoke holds for the next call, is idempotent, hides the key from lists, and allows no change."""
    made = create(user.channel)
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
    assert "new" not in names_of(user.channel)
    assert "new" in names_of(user.channel, show_revoked=True)
    for fields in ({"name": "other"}, {"expire_time": seconds_from_now(60)}, {"scopes": ["jobs:read"]}):
        with refused("FAILED_PRECONDITION", "INVALID_STATE") as refusal:
            update(user.channel, made.api_key.id, *fields, **fields)
        assert refusal.metadata == {"resource_type": "api_key", "state": "REVOKED"}


def test_key_can_end_itself(service: Service, user: User) -> None:
    """A key may revoke or delete itself, and is refused from then on."""
    for end in ("RevokeApiKey", "DeleteApiKey"):
        made = create(user.channel, end)
        channel = service.channel(api_key=made.secret)
        getattr(channel.api_keys, end)(getattr(pb, f"{end}Request")(id=made.api_key.id))
        with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
            channel.users.GetUser(ME)


def test_deleted_key_is_gone(service: Service, user: User) -> None:
    """A deleted key is refused and NOT_FOUND; only a repeat under the request id succeeds."""
    made = create(user.channel)
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
            lambda id=id: update(user.channel, id, "name", name="mine now"),
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
            names_of(user.channel, owner_id=request)
    with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
        create(user.channel, owner_id=other.id)
    admin = service.admin.channel
    made = create(admin, "for other", owner_id=other.id)
    assert service.channel(api_key=made.secret).users.GetUser(ME).id == other.id
    assert names_of(admin, owner_id=other.id) == ["for other", "test"]
    assert "for other" not in names_of(admin)
    assert "for other" in names_of(admin, owner_id="-", page_size=1000)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
        create(admin, owner_id="00000000-0000-7000-8000-000000000000")
    assert refusal.metadata["resource_type"] == "user"


def test_list_pages_newest_first(user: User) -> None:
    """Pages of one give every key once, newest first."""
    for number in range(3):
        create(user.channel, f"key {number}")
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
        ({"name": "  "}, "api_key.name"),
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
        create(user.channel, **{"name": "new", **fields})
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        update(user.channel, user.key_id, *fields, **fields)


@pytest.mark.parametrize("path", ["id", "owner_id", "state", "key_prefix", "key_hash", "use_count"])
def test_mask_reaches_only_what_can_be_written(user: User, path: str) -> None:
    """What the server sets cannot be named in a mask."""
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        update(user.channel, user.key_id, path)


def test_etag_guards_every_change(user: User) -> None:
    """A change with an old etag is ABORTED, and the use of a key does not make its etag old."""
    old = create(user.channel).api_key
    new = update(user.channel, old.id, "description", description="changed", etag=old.etag)
    assert new.etag != old.etag
    for call in (
        lambda: update(user.channel, old.id, "name", name="again", etag=old.etag),
        lambda: user.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=old.id, etag=old.etag)),
        lambda: user.channel.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=old.id, etag=old.etag)),
    ):
        with refused("ABORTED", "ETAG_MISMATCH"):
            call()
