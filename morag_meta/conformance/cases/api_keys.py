"""API keys: the secret, the scopes, and what ends a key."""

from __future__ import annotations

import re

from google.protobuf.field_mask_pb2 import FieldMask

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from morag_meta.conformance.waits import becomes, becomes_allowed, becomes_refused, from_now, lasting
from moragmeta.v1 import api_keys_pb2 as pb
from moragmeta.v1 import servers_pb2, users_pb2

AREA = Area("api keys")
_ME = users_pb2.GetUserRequest(id="me")
_LIST = servers_pb2.ListServersRequest()


def _create(bench: Bench, request: pb.CreateApiKeyRequest) -> pb.CreateApiKeyResponse:
    made = bench.mine.api_keys.CreateApiKey(request)
    bench.conceal(made.secret)
    delete = pb.DeleteApiKeyRequest(id=made.api_key.id)
    bench.later(f"api key {delete.id}", lambda: bench.mine.api_keys.DeleteApiKey(delete))
    return made


def _rotate(bench: Bench, request: pb.RotateApiKeyRequest) -> pb.RotateApiKeyResponse:
    rotated = bench.mine.api_keys.RotateApiKey(request)
    bench.conceal(rotated.secret)
    delete = pb.DeleteApiKeyRequest(id=rotated.api_key.id)
    bench.later(f"api key {delete.id}", lambda: bench.mine.api_keys.DeleteApiKey(delete))
    return rotated


def _get(bench: Bench, key_id: str) -> pb.ApiKey:
    return bench.mine.api_keys.GetApiKey(pb.GetApiKeyRequest(id=key_id))


@AREA.case
def a_secret_has_its_form(bench: Bench) -> None:
    """A secret is `morag_` and 43 characters of base64url, and the key shows its first twelve."""
    made = _create(bench, pb.CreateApiKeyRequest(api_key=pb.ApiKey(name=bench.name())))
    form = re.fullmatch(r"morag_[A-Za-z0-9_-]{43}", made.secret)
    holds("a secret of that form", fact=form is not None, seen=f"{len(made.secret)} characters")
    holds("its first 12 characters", fact=made.api_key.key_prefix == made.secret[:12], seen="others")
    same("who calls", bench.keyed(made.secret).users.GetUser(_ME).id, bench.me.id)


@AREA.case
def a_secret_is_shown_once(bench: Bench) -> None:
    """No answer but that to the creation holds the secret: not a get, a list, an update or a repeat."""
    request = pb.CreateApiKeyRequest(api_key=pb.ApiKey(name=bench.name()), request_id=bench.name())
    made = _create(bench, request)
    repeat = bench.mine.api_keys.CreateApiKey(request)
    same(
        "the repeat's key, secret and word",
        (repeat.api_key.id, repeat.secret, repeat.replayed),
        (made.api_key.id, "", True),
    )
    change = pb.UpdateApiKeyRequest(api_key=pb.ApiKey(id=made.api_key.id, description="x"))
    answers = (
        repeat,
        _get(bench, made.api_key.id),
        bench.mine.api_keys.ListApiKeys(pb.ListApiKeysRequest()),
        bench.mine.api_keys.UpdateApiKey(change),
    )
    held = [made.secret[12:].encode() in answer.SerializeToString() for answer in answers]
    same("whether repeat, get, list and update hold it", held, [False] * 4)


@AREA.case
def a_revoked_key_is_refused(bench: Bench) -> None:
    """A revoked key is UNAUTHENTICATED within 5 s, stays to be looked at, and cannot be changed."""
    key_id, caller = bench.add_key()
    caller.users.GetUser(_ME)
    revoked = bench.mine.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=key_id))
    same("its state", revoked.state, pb.API_KEY_STATE_REVOKED)
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: caller.users.GetUser(_ME))
    again = bench.mine.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=key_id))
    same("etag after a second revocation", again.etag, revoked.etag)
    with refused("FAILED_PRECONDITION", "INVALID_STATE", resource_type="api_key"):
        bench.mine.api_keys.UpdateApiKey(pb.UpdateApiKeyRequest(api_key=pb.ApiKey(id=key_id, name="x")))


@AREA.case
def revoked_keys_are_listed_on_request(bench: Bench) -> None:
    """A list leaves revoked keys out unless it is asked for them."""
    key_id, _ = bench.add_key()
    bench.mine.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=key_id))
    for shown in (False, True):
        request = pb.ListApiKeysRequest(show_revoked=shown, page_size=1000)
        listed = [key.id for key in bench.mine.api_keys.ListApiKeys(request).api_keys]
        same(f"whether show_revoked={shown} lists it", key_id in listed, shown)


@AREA.case
def a_deleted_key_is_refused(bench: Bench) -> None:
    """A deleted key is UNAUTHENTICATED within 5 s, and NOT_FOUND."""
    key_id, caller = bench.add_key()
    caller.users.GetUser(_ME)
    bench.mine.api_keys.DeleteApiKey(pb.DeleteApiKeyRequest(id=key_id))
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: caller.users.GetUser(_ME))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="api_key"):
        _get(bench, key_id)


@AREA.case
def an_expired_key_is_refused(bench: Bench) -> None:
    """A key is UNAUTHENTICATED after its expire_time, says EXPIRED, and a new end lets it in again."""
    key_id, caller = bench.add_key(expire_time=from_now(3))
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: caller.users.GetUser(_ME))
    same("its state", _get(bench, key_id).state, pb.API_KEY_STATE_EXPIRED)
    longer = pb.ApiKey(id=key_id, expire_time=from_now(3600))
    bench.mine.api_keys.UpdateApiKey(pb.UpdateApiKeyRequest(api_key=longer))
    same("who calls", caller.users.GetUser(_ME).id, bench.me.id)


@AREA.case
def an_end_lies_ahead(bench: Bench) -> None:
    """A key whose expire_time has passed is not made."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.expire_time"):
        bench.add_key(expire_time=from_now(-60))


@AREA.case
def a_name_is_taken_once(bench: Bench) -> None:
    """Two live keys of one owner have different names; a revoked one leaves its name to others."""
    name = bench.name()
    key_id, _ = bench.add_key(name=name)
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS", resource_type="api_key", field="name"):
        bench.add_key(name=name)
    bench.mine.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(id=key_id))
    again, _ = bench.add_key(name=name)
    same("the revoked key's name", (_get(bench, key_id).name, _get(bench, again).name), (name, name))


@AREA.case
def a_disabled_key_is_refused_until_it_is_enabled(bench: Bench) -> None:
    """A disabled key is UNAUTHENTICATED within 5 s and says DISABLED; once enabled it is let in again."""
    key_id, caller = bench.add_key()
    caller.users.GetUser(_ME)
    disabled = bench.mine.api_keys.DisableApiKey(pb.DisableApiKeyRequest(id=key_id))
    same("its state", disabled.state, pb.API_KEY_STATE_DISABLED)
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: caller.users.GetUser(_ME))
    enabled = bench.mine.api_keys.EnableApiKey(pb.EnableApiKeyRequest(id=key_id))
    same("its state once enabled", enabled.state, pb.API_KEY_STATE_ACTIVE)
    becomes_allowed(lambda: caller.users.GetUser(_ME))


@AREA.case
def a_rotated_key_goes_on_for_its_grace(bench: Bench) -> None:
    """RotateApiKey makes a key of the same name and scopes; the old one works until its grace ends."""
    name = bench.name()
    key_id, old = bench.add_key("users:read", "jobs:read", name=name)
    rotated = _rotate(bench, pb.RotateApiKeyRequest(id=key_id, grace=lasting(3)))
    new = bench.keyed(rotated.secret)
    same("the new key's name", rotated.api_key.name, name)
    same("the new key's scopes", list(rotated.api_key.scopes), ["jobs:read", "users:read"])
    same("who calls with either", [c.users.GetUser(_ME).id for c in (old, new)], [bench.me.id] * 2)
    links = (rotated.api_key.predecessor_id, rotated.predecessor.successor_id)
    same("what links both", links, (key_id, rotated.api_key.id))
    becomes_refused("UNAUTHENTICATED", "CREDENTIAL_INVALID", lambda: old.users.GetUser(_ME))
    same("who calls with the new key", new.users.GetUser(_ME).id, bench.me.id)


@AREA.case
def a_key_is_used_from_its_addresses(bench: Bench) -> None:
    """A key is let in from the addresses that it is bound to, and ADDRESS_NOT_ALLOWED from any other."""
    address = bench.mine.api_keys.GetCurrentPrincipal(pb.GetCurrentPrincipalRequest()).address
    holds("the caller's address", fact=bool(address), seen=address)
    _, here = bench.add_key(allowed_addresses=[address])
    same("who calls", here.users.GetUser(_ME).id, bench.me.id)
    _, away = bench.add_key(allowed_addresses=["192.0.2.0/24", "2001:db8::/32"])
    with refused("PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED", address=address):
        away.users.GetUser(_ME)


@AREA.case
def a_key_keeps_to_its_rate(bench: Bench) -> None:
    """A key with a rate is RESOURCE_EXHAUSTED once its burst is used up, in whichever process."""
    _, caller = bench.add_key(rate_limit=pb.RateLimit(per_second=0.001, burst=2))
    same("who calls within the burst", caller.users.GetUser(_ME).id, bench.me.id)
    becomes_refused("RESOURCE_EXHAUSTED", "RATE_LIMITED", lambda: caller.users.GetUser(_ME))


@AREA.case
def calls_of_a_key_are_counted(bench: Bench) -> None:
    """GetApiKeyUsage tells a key's calls by method within 10 s, with how many were errors."""
    key_id, caller = bench.add_key("users:read")
    caller.users.GetUser(_ME)
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        caller.servers.ListServers(_LIST)

    def seen() -> dict[str, tuple[int, int]]:
        usage = bench.mine.api_keys.GetApiKeyUsage(pb.GetApiKeyUsageRequest(id=key_id))
        return {each.method: (each.figures.call_count, each.figures.error_count) for each in usage.methods}

    expected = {"UserService.GetUser": (1, 0), "ServerService.ListServers": (1, 1)}
    becomes(f"calls and errors {expected}", lambda: seen() == expected)


@AREA.case
def a_key_knows_who_it_is(bench: Bench) -> None:
    """GetCurrentPrincipal answers user, key and scopes to a key of any scope."""
    key_id, caller = bench.add_key("jobs:read")
    who = caller.api_keys.GetCurrentPrincipal(pb.GetCurrentPrincipalRequest())
    same(
        "user, key and scopes",
        (who.user_id, who.key_id, list(who.scopes)),
        (bench.me.id, key_id, ["jobs:read"]),
    )


@AREA.case
def a_key_is_verified(bench: Bench) -> None:
    """VerifyApiKey answers VALID, INSUFFICIENT_SCOPE, DISABLED and NOT_FOUND, without an error."""
    made = _create(bench, pb.CreateApiKeyRequest(api_key=pb.ApiKey(name=bench.name(), scopes=["jobs:read"])))

    def verdict(key: str, scope: str = "jobs:read") -> str:
        request = pb.VerifyApiKeyRequest(key=key, scope=scope)
        answer = bench.mine.api_keys.VerifyApiKey(request)
        return pb.ApiKeyVerdict.Name(answer.verdict).removeprefix("API_KEY_VERDICT_")

    same("the verdict", verdict(made.secret), "VALID")
    same("the verdict on another scope", verdict(made.secret, "jobs:write"), "INSUFFICIENT_SCOPE")
    same("the verdict on what is no key", verdict("morag_" + "A" * 43), "NOT_FOUND")
    bench.mine.api_keys.DisableApiKey(pb.DisableApiKeyRequest(id=made.api_key.id))
    becomes("DISABLED", lambda: verdict(made.secret) == "DISABLED")


@AREA.case
def a_rotation_is_not_repeated(bench: Bench) -> None:
    """A repeat under the request id answers the same key without its secret; without one it is refused."""
    key_id, _ = bench.add_key()
    request = pb.RotateApiKeyRequest(id=key_id, request_id=bench.name())
    first = _rotate(bench, request)
    repeat = bench.mine.api_keys.RotateApiKey(request)
    seen = (repeat.api_key.id, repeat.secret, repeat.replayed)
    same("the repeat's key, secret and word", seen, (first.api_key.id, "", True))
    with refused("FAILED_PRECONDITION", "INVALID_STATE", resource_type="api_key"):
        bench.mine.api_keys.RotateApiKey(pb.RotateApiKeyRequest(id=key_id))


@AREA.case
def scopes_are_kept_sorted(bench: Bench) -> None:
    """Scopes are answered sorted and once each; none asked for means `*`."""
    key_id, _ = bench.add_key("servers:write", "jobs:read", "servers:write")
    same("scopes", list(_get(bench, key_id).scopes), ["jobs:read", "servers:write"])
    key_id, _ = bench.add_key()
    same("scopes where none are asked for", list(_get(bench, key_id).scopes), ["*"])


@AREA.case
def an_unknown_scope_is_refused(bench: Bench) -> None:
    """A scope that no method asks for is INVALID_ARGUMENT."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "api_key.scopes"):
        bench.add_key("servers:paint")


@AREA.case
def a_narrower_scope_takes_hold(bench: Bench) -> None:
    """A key that loses a scope is PERMISSION_DENIED within 5 s, and goes on with the others."""
    key_id, caller = bench.add_key("servers:read", "users:read")
    caller.servers.ListServers(_LIST)
    key = pb.ApiKey(id=key_id, scopes=["users:read"])
    request = pb.UpdateApiKeyRequest(api_key=key, update_mask=FieldMask(paths=["scopes"]))
    bench.mine.api_keys.UpdateApiKey(request)
    becomes_refused("PERMISSION_DENIED", "SCOPE_MISSING", lambda: caller.servers.ListServers(_LIST))
    caller.users.GetUser(_ME)


@AREA.case
def a_key_makes_no_stronger_key(bench: Bench) -> None:
    """A key that is made by way of another holds no scope that the other lacks."""
    _, maker = bench.add_key("api_keys:write", "servers:read")
    bench.add_key("servers:read", by=maker)
    for scopes in (("servers:write",), ()):
        with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED"):
            bench.add_key(*scopes, by=maker)


@AREA.admin_case
def a_user_gives_no_admin_scope(bench: Bench) -> None:
    """A USER cannot make a key with `jobs:work:all`; an ADMIN can, also for a USER."""
    with refused("PERMISSION_DENIED", "SCOPE_NOT_ALLOWED", scope="jobs:work:all"):
        bench.add_key("jobs:work:all")
    key = pb.ApiKey(name=bench.name(), scopes=["jobs:work:all"])
    made = bench.admin.api_keys.CreateApiKey(pb.CreateApiKeyRequest(api_key=key, owner_id=bench.me.id))
    bench.conceal(made.secret)
    same("owner and scopes", (made.api_key.owner_id, list(made.api_key.scopes)), (bench.me.id, key.scopes))
