"""Narrowed keys themselves: how they are made, what they show, and what they make."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest

from morag_meta.auth.principal import Role
from morag_meta.rpc.access import access_of
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import options_pb2, servers_pb2
from tests.api_keys.calls import create, get, names_of, rotate, update
from tests.grants.scene import READER, tenant
from tests.narrowing.scene import House, delete_database, documents_of
from tests.refusals import refused
from tests.rpc.messages import METHODS, request_type
from tests.service import Service


def test_a_key_shows_what_it_is_narrowed_to(house: House) -> None:
    """Create, Get, List, Rotate, Verify and GetCurrentPrincipal tell it, sorted and without repeats."""
    channel, wanted = house.all.user.channel, sorted([house.inside, house.outside])
    made = create(channel, database_ids=[*reversed(wanted), wanted[0]], server_ids=[house.all.server])
    listed = channel.api_keys.ListApiKeys(pb.ListApiKeysRequest()).api_keys
    verified = channel.api_keys.VerifyApiKey(pb.VerifyApiKeyRequest(key=made.secret))
    itself = house.service.channel(api_key=made.secret)
    principal = itself.api_keys.GetCurrentPrincipal(pb.GetCurrentPrincipalRequest())
    rotated = rotate(channel, made.api_key.id)
    shown: list[Any] = [made.api_key, get(channel, made.api_key.id), verified, principal, rotated.api_key]
    shown += [key for key in listed if key.id == made.api_key.id] + [rotated.predecessor]
    assert [(list(each.database_ids), list(each.server_ids)) for each in shown] == [
        (wanted, [house.all.server])
    ] * 7


def test_what_a_key_is_narrowed_to_never_changes(house: House) -> None:
    """A mask that names it is refused, and without a mask it is not written."""
    channel = house.all.user.channel
    made = create(channel, database_ids=[house.inside]).api_key
    for path in ("database_ids", "server_ids"):
        with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
            update(channel, made.id, path, database_ids=[house.outside])
    for paths in ((), ("*",)):
        changed = update(channel, made.id, *paths, name=f"other {paths}", database_ids=[house.outside])
        assert list(changed.database_ids) == [house.inside]


@pytest.mark.parametrize("field", ["database_ids", "server_ids"])
def test_at_most_32_are_named(house: House, field: str) -> None:
    """More than 32 names, or what is no id, is refused by the field's rule."""
    for ids, place in (([str(uuid.uuid4())] * 33, ""), (["x"], "[0]")):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", f"api_key.{field}{place}"):
            create(house.all.user.channel, **_named(**{field: ids}))


def test_only_what_the_owner_reaches_is_named(service: Service, house: House) -> None:
    """Another user's database or server is NOT_FOUND as what does not exist; a shared one may be named."""
    other, channel = tenant(service), house.all.user.channel
    for field, own, foreign in (
        ("database_ids", house.inside, other.shared),
        ("server_ids", house.inner_server, other.server),
    ):
        told = []
        for id in (foreign, str(uuid.uuid4())):
            with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
                create(channel, **_named(**{field: [own, id]}))
            told.append(str(refusal).replace(id, "ID"))
        assert told[0] == told[1]
    other.give(house.all.user, READER)
    made = create(channel, database_ids=[other.shared])
    inside = other.document()
    other.document(other.private)
    house.all.document()
    narrow = house.service.channel(api_key=made.secret)
    user = service.new_user()
    assert documents_of(_as(user, narrow), database_id=other.shared) == [inside.id]
    assert documents_of(_as(user, narrow)) == []


def _named(**fields: list[str]) -> dict[str, Any]:
    return dict(fields)


def _as(user: Any, channel: Any) -> Any:
    return type(user)(user.id, user.email, user.role, user.key, user.key_id, channel)


def test_an_admins_key_may_name_anything(service: Service, house: House) -> None:
    """A key of an ADMIN is narrowed to anybody's database, and reaches nothing else of anybody."""
    document, beyond = house.all.document(), house.all.document(house.outside)
    made = create(service.admin.channel, f"of {house.inside}", database_ids=[house.inside])
    narrow = _as(service.admin, service.channel(api_key=made.secret))
    assert documents_of(narrow, owner_id="-") == documents_of(narrow, owner_id=house.all.user.id)
    assert documents_of(narrow, owner_id="-") == [document.id]
    assert beyond.id not in documents_of(narrow, owner_id="-", show_deleted=True)


def test_a_narrowed_key_makes_only_keys_within(house: House, way: str) -> None:
    """It must narrow what it makes, to what it reaches; what is outside does not exist to it."""
    key = house.narrowed(way)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.database_ids"):
        create(key.channel, "wide")
    for fields in (_named(database_ids=[house.outside]), _named(server_ids=[house.all.server])):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            create(key.channel, "beyond", **fields)
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            create(key.channel, "partly", **fields | {"database_ids": [house.inside, house.outside]})
    assert list(create(key.channel, "same", **house.names(way)).api_key.database_ids) == list(
        house.names(way).get("database_ids", [])
    )
    assert create(key.channel, "less", database_ids=[house.inside]).secret
    if way == "database":
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            create(key.channel, "more", server_ids=[house.inner_server])


def test_a_narrowed_key_sees_to_itself_alone(house: House) -> None:
    """It rotates, disables and revokes itself; the owner's other keys do not exist to it."""
    for end in ("RotateApiKey", "DisableApiKey", "RevokeApiKey"):
        key = house.narrowed()
        call = getattr(key.channel.api_keys, end)
        request = getattr(pb, f"{end}Request")
        told = []
        for id in (house.all.user.key_id, str(uuid.uuid4())):
            with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
                call(request(id=id))
            told.append(str(refusal).replace(id, "ID"))
        assert told[0] == told[1]
        call(request(id=key.key_id))
    assert get(house.all.user.channel, house.all.user.key_id).state == pb.API_KEY_STATE_ACTIVE


def test_what_is_about_the_account_is_refused(service: Service, house: House) -> None:
    """Each method that does not admit narrowed keys is KEY_NARROWED to an ADMIN's with every scope."""
    made = create(service.admin.channel, f"narrow {house.inside}", database_ids=[house.inside])
    channel: Any = service.channel(api_key=made.secret).raw
    refused_ones = 0
    for method in METHODS.values():
        access = access_of(method)
        takes_keys = not access.public and (access.scopes or access.any_scope)
        if not takes_keys or access.admits_narrowed:
            continue
        refused_ones += 1
        path = f"/{method.containing_service.full_name}/{method.name}"
        call = channel.unary_unary(path, request_serializer=request_type(method).SerializeToString)
        with refused("PERMISSION_DENIED", "KEY_NARROWED"):
            call(request_type(method)(), metadata=(("x-api-key", made.secret),), timeout=10)
    assert refused_ones > 25


def test_every_method_says_what_it_means_for_narrowed_keys() -> None:
    """A method that keys may call admits or refuses narrowed ones; those of accounts are all refused."""
    admitted = {
        f"{method.containing_service.name}.{method.name}"
        for method in METHODS.values()
        if access_of(method).admits_narrowed
    }
    of_rows = ("ServerService.", "DatabaseService.", "DocumentService.", "JobService.")
    assert {name for name in admitted if not name.startswith(of_rows)} == {
        *(f"WorkerService.{verb}" for verb in ("RegisterWorker", "LeaseJobs", "HeartbeatJob", "ReleaseJob")),
        *(f"ApiKeyService.{verb}ApiKey" for verb in ("Create", "Rotate", "Revoke", "Disable")),
        "ApiKeyService.GetCurrentPrincipal",
    }
    assert "ServerService.CreateServer" not in admitted
    declared = [method.GetOptions().Extensions[options_pb2.access] for method in METHODS.values()]
    assert all(each.narrowed_keys or each.public or not each.scopes for each in declared)


def test_a_key_of_which_nothing_is_left_reaches_nothing(house: House, way: str) -> None:
    """Deleting the database, or the server, leaves the key with nothing, and not with everything."""
    kept = house.all.document(house.outside)
    key = house.narrowed(way)
    document = house.all.document()
    assert documents_of(key) == [document.id]
    delete_database(house.all.user, house.inside)
    request = servers_pb2.DeleteServerRequest(id=house.inner_server)
    house.all.user.channel.servers.DeleteServer(request)
    assert documents_of(key) == documents_of(key, database_id="-") == []
    assert sorted(documents_of(house.all.user)) == sorted([kept.id, document.id])
    with refused("NOT_FOUND"):
        key.channel.servers.GetServer(servers_pb2.GetServerRequest(id=house.all.server))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.database_ids"):
        create(key.channel, "wide")
    principal = key.channel.api_keys.GetCurrentPrincipal(pb.GetCurrentPrincipalRequest())
    assert list(principal.database_ids) + list(principal.server_ids)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.USER])
def test_who_was_demoted_ends_their_own_keys(service: Service, role: Role) -> None:
    """A VIEWER revokes and disables keys of their own, and nobody else's; making one stays a USER's."""
    user, other = service.new_user(role), service.new_user()
    own = service.new_user(role)
    for end in ("DisableApiKey", "RevokeApiKey"):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            getattr(user.channel.api_keys, end)(getattr(pb, f"{end}Request")(id=other.key_id))
    own.channel.api_keys.DisableApiKey(pb.DisableApiKeyRequest(id=own.key_id))
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        names_of(own.channel)
    user.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=user.key_id))
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        names_of(user.channel)


def test_any_key_ends_itself(service: Service, house: House) -> None:
    """A key without the scope to write keys revokes itself, and to it the owner's other keys do not exist."""
    key = house.key(scopes=["documents:read"])
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        key.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=house.all.user.key_id))
    ended = key.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=key.key_id))
    assert ended.state == pb.API_KEY_STATE_REVOKED
