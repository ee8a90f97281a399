"""What a key may do, over the wire: its scopes, its owner's role, and the key that made it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.db.schema import api_keys
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import options_pb2, servers_pb2, users_pb2
from tests.api_keys.calls import ME, create, names_of, rotate, seconds_from_now, update
from tests.refusals import refused
from tests.service import Service, User


def test_key_does_what_its_scopes_say(service: Service, user: User) -> None:
    """A key with a scope may call its methods and no others; the answer names the missing scope."""
    reader = service.channel(api_key=create(user.channel, scopes=["users:read"]).secret)
    assert reader.users.GetUser(ME).id == user.id
    with refused("PERMISSION_DENIED", "SCOPE_MISSING") as refusal:
        reader.servers.ListServers(servers_pb2.ListServersRequest())
    assert refusal.metadata == {"required_scope": "servers:read"}
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        reader.users.UpdateUser(users_pb2.UpdateUserRequest(user=users_pb2.User(id="me", name="Other")))


def test_key_never_does_more_than_its_owner(service: Service) -> None:
    """A key of every scope shrinks with its owner's role and grows with it."""
    user = service.new_user(Role.ADMIN)
    secret = create(user.channel, "all").secret
    channel = service.channel(api_key=secret)
    channel.users.ListUsers(users_pb2.ListUsersRequest())
    service.admin.channel.users.SetUserRole(
        users_pb2.SetUserRoleRequest(id=user.id, role=options_pb2.ROLE_VIEWER)
    )
    channel.users.GetUser(ME)
    for refusal in (
        lambda: channel.users.ListUsers(users_pb2.ListUsersRequest()),
        lambda: create(channel, "more"),
    ):
        with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
            refusal()


def test_scopes_stay_within_the_owners_role(service: Service) -> None:
    """For a VIEWER an ADMIN can make a key that reads, and none with a scope that writes."""
    viewer = service.new_user(Role.VIEWER)
    made = create(service.admin.channel, owner_id=viewer.id, scopes=["jobs:read"])
    assert made.api_key.owner_id == viewer.id
    assert service.channel(api_key=made.secret).users is not None
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED") as refusal:
        create(service.admin.channel, "other", owner_id=viewer.id, scopes=["jobs:write"])
    assert refusal.metadata == {"scope": "jobs:write"}


def test_key_made_by_a_key_holds_no_more(service: Service, user: User) -> None:
    """By way of a bounded key nobody gets a wider or a longer one, neither made nor changed."""
    bounded = create(
        user.channel,
        "bounded",
        scopes=["api_keys:write", "api_keys:read", "jobs:read"],
        expire_time=seconds_from_now(3600),
    )
    wide = create(user.channel, "wide").api_key
    channel = service.channel(api_key=bounded.secret)
    narrow = create(channel, "narrow", scopes=["jobs:read"], expire_time=seconds_from_now(60)).api_key
    for scopes in ([], ["*"], ["jobs:read", "jobs:write"]):
        for call in (
            lambda scopes=scopes: create(channel, "wider", scopes=scopes, expire_time=seconds_from_now(60)),
            lambda scopes=scopes: update(channel, narrow.id, "scopes", scopes=scopes),
        ):
            with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
                call()
    longer: list[dict[str, Any]] = [{}, {"expire_time": seconds_from_now(7200)}]
    for fields in longer:
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.expire_time"):
            create(channel, "longer", scopes=["jobs:read"], **fields)
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.expire_time"):
            update(channel, narrow.id, "expire_time", **fields)
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
        update(channel, wide.id, "expire_time", expire_time=seconds_from_now(60))
    assert update(channel, wide.id, "name", name="renamed").name == "renamed"
    assert user.channel.api_keys.GetApiKey(pb.GetApiKeyRequest(id=narrow.id)) == narrow


def test_change_of_scopes_holds_at_once(service: Service, user: User) -> None:
    """A key that loses a scope is refused with its next call, and one that gains a scope is let through."""
    made = create(user.channel, scopes=["servers:read"])
    channel = service.channel(api_key=made.secret)
    channel.servers.ListServers(servers_pb2.ListServersRequest())
    update(user.channel, made.api_key.id, "scopes", scopes=["users:read"])
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        channel.servers.ListServers(servers_pb2.ListServersRequest())
    cleared = update(user.channel, made.api_key.id, "scopes")
    assert list(cleared.scopes) == ["*"]
    channel.servers.ListServers(servers_pb2.ListServersRequest())


def test_scope_of_everybody_is_an_admins_to_give(service: Service, user: User) -> None:
    """An ADMIN puts jobs:work:all on anybody's key; its owner neither gives it, nor keeps it alive."""
    admin = service.admin.channel
    everybody = ["jobs:work:all"]
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED") as refusal:
        create(user.channel, "own", scopes=everybody)
    assert refusal.metadata == {"scope": "jobs:work:all"}
    given = create(admin, "given", owner_id=user.id, scopes=everybody, expire_time=seconds_from_now(60))
    plain = create(user.channel, "plain", scopes=["jobs:work"]).api_key
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
        update(user.channel, plain.id, "scopes", scopes=["jobs:work", "jobs:work:all"])
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
        update(user.channel, given.api_key.id, "expire_time")
    narrowed = update(user.channel, given.api_key.id, "scopes", scopes=["jobs:work"])
    assert list(narrowed.scopes) == ["jobs:work"]
    assert list(update(admin, plain.id, "scopes", scopes=everybody).scopes) == everybody


def test_admins_key_gives_the_scope_of_everybody_only_if_it_holds_it(service: Service, user: User) -> None:
    """Of an ADMIN's keys one that makes keys, and no more, gives nobody the jobs of everybody."""
    maker = service.channel(api_key=create(service.admin.channel, "maker", scopes=["api_keys:write"]).secret)
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
        create(maker, owner_id=user.id, scopes=["jobs:work:all"])
    both = create(service.admin.channel, "both", scopes=["api_keys:write", "jobs:work:all"])
    made = create(service.channel(api_key=both.secret), owner_id=user.id, scopes=["jobs:work:all"])
    assert list(made.api_key.scopes) == ["jobs:work:all"]


def _revoke_unheard(service: Service, key_id: str) -> None:
    """Revoke a key past the service, which goes on to trust it, as for a moment after a revoke elsewhere."""
    revoke = sa.update(api_keys).where(api_keys.c.id == key_id)
    with service.database.engine.connect() as connection:
        connection.execute(revoke.values(revoke_time=dt.datetime.now(dt.UTC)))
        connection.commit()


@pytest.mark.parametrize("grant", ["create", "widen", "enable", "rotate"])
def test_key_that_is_still_trusted_after_its_revoke_grants_nothing(
    service: Service, user: User, grant: str
) -> None:
    """A key that was revoked a moment ago in another process leaves no key behind that outlives it."""
    secret = create(user.channel, "leaked").secret
    leaked = service.channel(api_key=secret)
    other = create(user.channel, "other", scopes=["jobs:read"]).api_key.id
    grants: dict[str, Callable[[], Any]] = {
        "create": lambda: create(leaked, "heir"),
        "widen": lambda: update(leaked, other, "scopes"),
        "enable": lambda: leaked.api_keys.EnableApiKey(pb.EnableApiKeyRequest(id=other)),
        "rotate": lambda: rotate(leaked, other),
    }
    id = leaked.api_keys.GetCurrentPrincipal(pb.GetCurrentPrincipalRequest()).key_id
    _revoke_unheard(service, id)
    with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
        grants[grant]()
    assert "heir" not in names_of(user.channel)
