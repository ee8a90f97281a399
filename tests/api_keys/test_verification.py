"""Who calls, and what another service is told of a key that it was sent."""

from __future__ import annotations

import time
from typing import Any

import pytest

from morag_meta.auth.keys import new_key
from morag_meta.auth.principal import Role
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import options_pb2, users_pb2
from tests.api_keys.calls import create, get, seconds_from_now, update
from tests.refusals import refused
from tests.service import Channel, Service, User

_WHO = pb.GetCurrentPrincipalRequest()


def _verify(channel: Channel, key: str, **fields: str) -> pb.VerifyApiKeyResponse:
    return channel.api_keys.VerifyApiKey(pb.VerifyApiKeyRequest(key=key, **fields))


def _verdict(channel: Channel, key: str, **fields: str) -> str:
    name = pb.ApiKeyVerdict.Name(_verify(channel, key, **fields).verdict)
    return name.removeprefix("API_KEY_VERDICT_")


def test_key_is_told_who_it_is(service: Service, user: User) -> None:
    """A key learns its user, role, id, scopes and end, whatever its scopes are, and the address it has."""
    end = seconds_from_now(600)
    made = create(user.channel, scopes=["jobs:read"], expire_time=end)
    who = service.channel(api_key=made.secret).api_keys.GetCurrentPrincipal(_WHO)
    assert who == pb.Principal(
        user_id=user.id,
        role=options_pb2.ROLE_USER,
        key_id=made.api_key.id,
        scopes=["jobs:read"],
        expire_time=end,
        address="127.0.0.1",
    )
    assert list(user.channel.api_keys.GetCurrentPrincipal(_WHO).scopes) == ["*"]


def test_session_is_told_who_it_is(service: Service) -> None:
    """An access token learns its user, session and own end, and that it holds every scope."""
    anybody, email = service.channel(), f"who@{service.kind}.test"
    anybody.users.RegisterUser(
        users_pb2.RegisterUserRequest(name="Jo", email=email, password="correct horse")
    )
    session = anybody.users.Login(users_pb2.LoginRequest(email=email, password="correct horse"))
    who = service.channel(token=session.access_token).api_keys.GetCurrentPrincipal(_WHO)
    assert (who.user_id, who.key_id, bool(who.session_id)) == (session.user.id, "", True)
    assert (list(who.scopes), who.role) == (["*"], options_pb2.ROLE_USER)
    assert 0 < who.expire_time.seconds - time.time() <= 900


def test_nobody_is_told_nothing(service: Service) -> None:
    """Without a credential there is no principal to tell of."""
    with refused("UNAUTHENTICATED", "CREDENTIAL_MISSING"):
        service.channel().api_keys.GetCurrentPrincipal(_WHO)


def test_valid_key_is_told_with_what_it_may(user: User) -> None:
    """Of a key that works its id, owner, role, scopes and end are told."""
    end = seconds_from_now(600)
    made = create(user.channel, scopes=["jobs:read", "users:read"], expire_time=end)
    assert _verify(user.channel, made.secret) == pb.VerifyApiKeyResponse(
        verdict=pb.API_KEY_VERDICT_VALID,
        key_id=made.api_key.id,
        owner_id=user.id,
        owner_role=options_pb2.ROLE_USER,
        scopes=["jobs:read", "users:read"],
        expire_time=end,
    )


def test_each_state_has_its_verdict(user: User) -> None:
    """A disabled, expired or revoked key is told as such from the moment on, and with whose it is."""
    channel, keys = user.channel, user.channel.api_keys
    made = create(channel, expire_time=seconds_from_now(4))
    id, key = made.api_key.id, made.secret
    assert _verdict(channel, key) == "VALID"
    keys.DisableApiKey(pb.DisableApiKeyRequest(id=id))
    assert _verdict(channel, key) == "DISABLED"
    keys.EnableApiKey(pb.EnableApiKeyRequest(id=id))
    assert _verdict(channel, key) == "VALID"
    time.sleep(4)
    assert _verdict(channel, key) == "EXPIRED"
    assert (_verify(channel, key).key_id, _verify(channel, key).owner_id) == (id, user.id)
    keys.DisableApiKey(pb.DisableApiKeyRequest(id=id))
    assert _verdict(channel, key) == "DISABLED"
    keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=id))
    assert _verdict(channel, key) == "REVOKED"
    keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=id))
    assert _verify(channel, key) == pb.VerifyApiKeyResponse(verdict=pb.API_KEY_VERDICT_NOT_FOUND)


@pytest.mark.parametrize(
    "key",
    [new_key(), "x", "morag_short", "a.b.c", "ä" * 49, "k" * 256],
    ids=["new", "letter", "short", "token", "foreign letters", "long"],
)
def test_what_is_no_key_is_not_found(user: User, key: str) -> None:
    """Whatever is not a key of somebody is NOT_FOUND, whether it looks like one or not."""
    assert _verify(user.channel, key) == pb.VerifyApiKeyResponse(verdict=pb.API_KEY_VERDICT_NOT_FOUND)


def test_key_of_who_is_not_active_is_disabled(service: Service) -> None:
    """The keys of a deactivated user are DISABLED, and work again when the user does."""
    owner, admin = service.new_user(), service.admin.channel
    admin.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=owner.id))
    assert _verdict(admin, owner.key) == "DISABLED"
    admin.users.ReactivateUser(users_pb2.ReactivateUserRequest(id=owner.id))
    assert _verdict(admin, owner.key) == "VALID"


@pytest.mark.parametrize(
    ("scopes", "role", "needed", "verdict"),
    [
        (["jobs:read"], Role.USER, "jobs:read", "VALID"),
        (["jobs:read"], Role.USER, "jobs:write", "INSUFFICIENT_SCOPE"),
        ([], Role.USER, "jobs:write", "VALID"),
        ([], Role.VIEWER, "jobs:write", "INSUFFICIENT_SCOPE"),
        ([], Role.USER, "jobs:work:all", "INSUFFICIENT_SCOPE"),
        (["jobs:work:all"], Role.VIEWER, "jobs:work:all", "VALID"),
        ([], Role.ADMIN, "jobs:work:all", "VALID"),
    ],
)
def test_needed_scope_is_held_within_the_role(
    service: Service, scopes: list[str], role: Role, needed: str, verdict: str
) -> None:
    """A scope is enough when the key holds it and the role of its owner covers it, as for calls here."""
    owner = service.new_user(role)
    key = create(service.admin.channel, "k", owner_id=owner.id, scopes=scopes).secret
    assert _verdict(service.admin.channel, key, scope=needed) == verdict


def test_address_of_the_caller_is_looked_at(user: User) -> None:
    """A bound key is to be let in from its addresses alone, and not from nobody knows where."""
    key = create(user.channel, allowed_addresses=["192.0.2.0/24", "unix"]).secret
    for address, verdict in {
        "192.0.2.9": "VALID",
        "::ffff:192.0.2.9": "VALID",
        "unix": "VALID",
        "127.0.0.1": "IP_NOT_ALLOWED",
        "2001:db8::1": "IP_NOT_ALLOWED",
        "": "IP_NOT_ALLOWED",
    }.items():
        assert _verdict(user.channel, key, address=address) == verdict
    assert _verdict(user.channel, user.key, address="192.0.2.9") == "VALID"
    assert _verdict(user.channel, user.key) == "VALID"


def test_only_own_keys_are_known_without_the_scope_over_everybody(service: Service, user: User) -> None:
    """Another's key is as good as none to a USER and to an ADMIN's key of one scope; who may, is told."""
    other, admin = service.new_user(), service.admin
    unknown = pb.VerifyApiKeyResponse(verdict=pb.API_KEY_VERDICT_NOT_FOUND)
    assert _verify(user.channel, other.key) == unknown
    revoked = create(other.channel, "revoked")
    other.channel.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=revoked.api_key.id))
    assert _verify(user.channel, revoked.secret) == unknown
    of_own = create(admin.channel, f"own {user.id}", scopes=["api_keys:verify"])
    assert _verify(service.channel(api_key=of_own.secret), other.key) == unknown
    assert _verdict(service.channel(api_key=of_own.secret), admin.key) == "VALID"
    given = create(admin.channel, "all", owner_id=user.id, scopes=["api_keys:verify:all"])
    for asker in (admin.channel, service.channel(api_key=given.secret)):
        assert _verify(asker, other.key).owner_id == other.id


def test_scope_of_its_own_is_needed(service: Service, user: User) -> None:
    """A key that reads keys, and no more, verifies none."""
    reader = create(user.channel, scopes=["api_keys:read", "api_keys:write"])
    with refused("PERMISSION_DENIED", "SCOPE_MISSING") as refusal:
        _verify(service.channel(api_key=reader.secret), user.key)
    assert refusal.metadata == {"required_scope": "api_keys:verify"}
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
        create(user.channel, "all", scopes=["api_keys:verify:all"])


def test_verification_follows_a_change_at_once(user: User) -> None:
    """What a key loses it has lost for the next question, though it was just asked after."""
    made = create(user.channel, scopes=["jobs:read"])
    assert _verdict(user.channel, made.secret, scope="jobs:read") == "VALID"
    update(user.channel, made.api_key.id, "scopes", scopes=["users:read"])
    assert _verdict(user.channel, made.secret, scope="jobs:read") == "INSUFFICIENT_SCOPE"


def test_verification_is_no_use_and_writes_nothing(service: Service, user: User) -> None:
    """A key that is verified was not used: its count stays, and known keys reach no database."""
    made = create(user.channel)
    _verify(user.channel, made.secret)
    before = get(user.channel, made.api_key.id)
    for _number in range(20):
        _verify(user.channel, made.secret)
    service.on_loop(service.app._usage.flush())  # noqa: SLF001 - instead of waiting for it
    assert get(user.channel, made.api_key.id) == before
    assert before.use_count == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"key": ""}, "key"),
        ({"key": "k" * 257}, "key"),
        ({"scope": "jobs:fly"}, "scope"),
        ({"scope": "*"}, "scope"),
        ({"address": "localhost"}, "address"),
        ({"address": "10.0.0.0/8"}, "address"),
    ],
)
def test_bad_questions_are_named_without_the_key(user: User, fields: dict[str, Any], field: str) -> None:
    """What cannot be asked is INVALID_ARGUMENT, whose words hold nothing of the key."""
    request = pb.VerifyApiKeyRequest(**{"key": user.key, **fields})
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", field) as refusal:
        user.channel.api_keys.VerifyApiKey(request)
    assert user.key not in str(refusal)
    assert "kkk" not in str(refusal)


def test_the_key_is_not_logged(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of the access log about a verification do not hold the key."""
    key = create(user.channel).secret
    capsys.readouterr()
    _verify(user.channel, key)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "scope"):
        _verify(user.channel, key, scope="jobs:fly")
    logged = "".join(capsys.readouterr())
    assert logged.count("ApiKeyService.VerifyApiKey") == 2
    assert key[12:] not in logged
