"""The model of API keys: what they may, how they are replaced, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.model.contract import EVERY_SCOPE, ROLES, SCOPES
from tests.model.steps import Step, denied, missing, present, stuck, taken, wrong_field
from tests.model.things import Key
from tests.model.world import AFTER, Given, Principal, World, check_etag, of, rule

_ENDS = {"2098-01-01T00:00:00Z": 10**9, "2099-01-01T00:00:00Z": 10**9 + 1}
"""When keys with ends of their own end: after every grace."""


def _shown(world: World, key: Key) -> dict[str, Any]:
    return present(
        id=key.id,
        owner_id=key.owner,
        name=key.name,
        scopes=list(key.scopes),
        state=world.state_of(key),
        expire_time=key.end is not None,
        revoke_time=key.revoked,
        disable_time=key.disabled,
        predecessor_id=key.predecessor,
        successor_id=key.successor,
    )


@rule("CreateApiKey")
def _create(world: World, caller: Principal, given: Given, step: Step) -> Any:
    sent = given["api_key"]
    owner = world.owner_of_list(caller, given.get("owner_id", ""))
    if owner not in world.users:
        raise missing()
    scopes, end = _scopes(world, owner, sent), _ENDS.get(sent.get("expire_time", ""))
    _check_within(world, caller, scopes, end)
    _refuse_taken(world, owner, sent["name"])
    world.added.add((owner, "api_keys"))
    key = world.keys[step.made] = Key(step.made, owner, sent["name"], scopes, end=end)
    return {"api_key": _shown(world, key)}


def _scopes(world: World, owner: str, sent: Given) -> tuple[str, ...]:
    """Give the scopes that a key of an owner gets; of everybody's rows they are beside the owner's role."""
    scopes = tuple(sorted(set(sent.get("scopes", ())))) or (EVERY_SCOPE,)
    if EVERY_SCOPE in scopes:
        return (EVERY_SCOPE,)
    for scope in scopes:
        if SCOPES[scope] > ROLES[world.users[owner].role] and not scope.endswith(":all"):
            raise denied("SCOPE_NOT_ALLOWED")
    return scopes


def _refuse_taken(world: World, owner: str, name: str, besides: str = "") -> None:
    for key in world.keys.values():
        if key.owner == owner and key.name == name and key.id != besides and _keeps_name(key):
            raise taken()


def _keeps_name(key: Key) -> bool:
    return not key.revoked and not key.successor


def _check_within(world: World, caller: Principal, scopes: Iterable[str], end: int | None) -> None:
    """Refuse what is beyond the caller's role, or beyond the calling key in what it may or when it ends."""
    for scope in scopes:
        if scope.endswith(":all") and not caller.is_admin:
            raise denied("SCOPE_NOT_ALLOWED")
        if caller.scopes is not None and scope not in caller.scopes:
            raise denied("SCOPE_NOT_ALLOWED")
    latest = world.keys[caller.key].end if caller.key else None
    if latest is not None and (end is None or end > latest):
        raise wrong_field()


@rule("GetApiKey")
def _get(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return _shown(world, world.own(world.keys, given["id"], caller))


@rule("ListApiKeys")
def _list(world: World, caller: Principal, given: Given, step: Step) -> Any:
    owner = world.owner_of_list(caller, given.get("owner_id", ""))
    keys = of(owner, world.keys.values())
    return [_shown(world, key) for key in keys if given.get("show_revoked") or not key.revoked]


@rule("UpdateApiKey")
def _update(world: World, caller: Principal, given: Given, step: Step) -> Any:
    """Change a key; who changes what it may, or when it ends, grants all that it then may."""
    sent, named = given["api_key"], given["update_mask"].split(",")
    key = world.own(world.keys, sent["id"], caller)
    check_etag(sent)
    if not _keeps_name(key):
        raise stuck()
    scopes = _scopes(world, key.owner, sent) if "scopes" in named else key.scopes
    end = _ENDS.get(sent.get("expire_time", "")) if "expireTime" in named else key.end
    if named != ["name"]:
        _check_within(world, caller, scopes, end)
    name = sent["name"] if "name" in named else key.name
    _refuse_taken(world, key.owner, name, besides=key.id)
    key.name, key.scopes, key.end = name, scopes, end
    return _shown(world, key)


@rule("DeleteApiKey")
def _delete(world: World, caller: Principal, given: Given, step: Step) -> Any:
    key = world.own(world.keys, given["id"], caller)
    check_etag(given)
    del world.keys[key.id]
    return {}


def _ended_by(world: World, caller: Principal, label: str) -> Key:
    """Give a key that the caller may end or replace: a key itself, others only where it may write keys."""
    if caller.key != label and not caller.has("api_keys:write"):
        raise missing()
    return world.own(world.keys, label, caller)


@rule("RevokeApiKey")
def _revoke(world: World, caller: Principal, given: Given, step: Step) -> Any:
    key = _ended_by(world, caller, given["id"])
    check_etag(given)
    key.revoked = True
    return _shown(world, key)


@rule("DisableApiKey")
def _disable(world: World, caller: Principal, given: Given, step: Step) -> Any:
    key = _ended_by(world, caller, given["id"])
    check_etag(given)
    if key.revoked:
        raise stuck()
    key.disabled = True
    return _shown(world, key)


@rule("EnableApiKey")
def _enable(world: World, caller: Principal, given: Given, step: Step) -> Any:
    key = world.own(world.keys, given["id"], caller)
    check_etag(given)
    _check_within(world, caller, key.scopes, key.end)
    if key.revoked:
        raise stuck()
    key.disabled = False
    return _shown(world, key)


@rule("RotateApiKey")
def _rotate(world: World, caller: Principal, given: Given, step: Step) -> Any:
    key = _ended_by(world, caller, given["id"])
    check_etag(given)
    _check_within(world, caller, key.scopes, key.end)
    if not _keeps_name(key) or world.state_of(key) != "ACTIVE":
        raise stuck()
    new = Key(step.made, key.owner, key.name, key.scopes, end=key.end, predecessor=key.id)
    world.keys[new.id] = new
    end = step.number + (0 if given["grace"] == "0s" else AFTER)
    key.end, key.successor = end if key.end is None else min(end, key.end), new.id
    return {"api_key": _shown(world, new), "predecessor": _shown(world, key)}


@rule("VerifyApiKey")
def _verify(world: World, caller: Principal, given: Given, step: Step) -> Any:
    key = world.keys.get(given["key"])
    if key is None or not (key.owner == caller.user or caller.has("api_keys:verify:all")):
        return {"verdict": "NOT_FOUND"}
    holder = world.users[key.owner]
    return present(
        verdict=_verdict(world, key, given.get("scope", "")),
        key_id=key.id,
        owner_id=key.owner,
        owner_role=holder.role,
        scopes=list(key.scopes),
        expire_time=key.end is not None,
    )


def _verdict(world: World, key: Key, scope: str) -> str:
    state = world.state_of(key)
    if not key.revoked and not world.users[key.owner].active:
        return "DISABLED"
    proven = world.standing(key.id)
    if proven is None:
        return state
    if scope and not (proven.has(scope) and (scope.endswith(":all") or ROLES[proven.role] >= SCOPES[scope])):
        return "INSUFFICIENT_SCOPE"
    return "VALID"


@rule("GetCurrentPrincipal")
def _who(world: World, caller: Principal, given: Given, step: Step) -> Any:
    scopes = [EVERY_SCOPE] if caller.scopes is None else sorted(caller.scopes)
    return present(
        user_id=caller.user,
        role=caller.role,
        key_id=caller.key,
        session_id=caller.session,
        scopes=scopes,
        expire_time=bool(caller.session) or world.keys[caller.key].end is not None,
    )
