"""What is sent with each method over users, sessions and API keys in a walk."""

from __future__ import annotations

from typing import Any, Final

from tests.model.requests import Dice, sends
from tests.model.steps import ROOT, ROOT_KEY
from tests.model.things import Key

_SCOPES: Final = (
    *("documents:read", "documents:write", "databases:read", "databases:write", "grants:read"),
    *("grants:write", "jobs:read", "jobs:write", "jobs:work", "jobs:work:all", "api_keys:read"),
    *("api_keys:write", "api_keys:verify", "api_keys:verify:all", "users:read", "users:write"),
    *("servers:read", "servers:write", "quotas:read", "quotas:write"),
)
_PASSWORDS: Final = ("correct horse battery", "another horse battery")
_REPEATABLE: Final = 20
"""Steps within which a refresh token that was replaced is still accepted, as they take no 30 seconds."""


@sends("RegisterUser")
def _register(by: Dice, number: int) -> dict[str, Any]:
    taken = [user.email for user in by.world.users.values() if user.password]
    email = by.dice.choice(taken) if taken and by.odds(0.1) else f"u{number}@walk.test"
    return {"name": f"User {number}", "email": email, "password": by.dice.choice(_PASSWORDS)}


@sends("Login")
def _log_in(by: Dice, number: int) -> dict[str, Any]:
    users = [user for user in by.world.users.values() if user.password]
    if not users or by.odds(0.05):
        return {"email": "nobody@walk.test", "password": _PASSWORDS[0]}
    user = by.dice.choice(users)
    password = by.dice.choice(_PASSWORDS) if by.odds(0.15) else user.password
    return {"email": user.email, "password": password or _PASSWORDS[0]}


@sends("RefreshToken")
def _refresh(by: Dice, number: int) -> dict[str, Any]:
    sessions = list(by.world.sessions.values())
    if not sessions or by.odds(0.05):
        return {"refresh_token": "r99999999"}
    session = by.dice.choice(sessions)
    old = session.tokens[:-2]
    if session.rotated + _REPEATABLE > number:
        old = session.tokens[:-1]
    return {"refresh_token": by.dice.choice(old) if old and by.odds(0.3) else session.tokens[-1]}


@sends("Logout", "GetCurrentPrincipal")
def _nothing(by: Dice, number: int) -> dict[str, Any]:
    return {}


@sends("ChangePassword")
def _change_password(by: Dice, number: int) -> dict[str, Any]:
    known = by.world.users[by.user].password if by.user in by.world.users else None
    current = known if known and by.odds(0.8) else "a wrong horse battery"
    return {"current_password": current, "new_password": by.dice.choice(_PASSWORDS)}


@sends("EndSession")
def _end_session(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.sessions, "s")}


@sends("GetUser")
def _get_user(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.dice.choice(["me", by.one(by.world.users, "u")])}


@sends("UpdateUser")
def _update_user(by: Dice, number: int) -> dict[str, Any]:
    id = by.user if by.user and by.odds(0.7) else by.one(by.world.users, "u")
    return {"user": {"id": id, "name": f"Name {number}", **by.etag()}, "update_mask": "name"}


def _dispensable(by: Dice) -> list[str]:
    """Give the users whom a walk can do without: it needs the first ADMIN, who can always call."""
    others = [u for u in by.world.users.values() if u.role == "ADMIN" and u.active and u.id != ROOT]
    return [label for label in by.world.users if label != ROOT or not others]


@sends("SetUserRole")
def _set_role(by: Dice, number: int) -> dict[str, Any]:
    role = by.dice.choice(["VIEWER", "VIEWER", "USER", "USER", "USER", "ADMIN"])
    return {"id": by.one(_dispensable(by), "u"), "role": f"ROLE_{role}", **by.etag()}


@sends("DeactivateUser")
def _deactivate(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.one(_dispensable(by), "u"), **by.etag()}


@sends("ReactivateUser", "DeleteUser")
def _inactive(by: Dice, number: int) -> dict[str, Any]:
    off = [label for label, user in by.world.users.items() if not user.active and label != ROOT]
    return {"id": by.one(off if off and by.odds(0.8) else by.world.users, "u"), **by.etag()}


@sends("CreateApiKey")
def _create_key(by: Dice, number: int) -> dict[str, Any]:
    names = [key.name for key in by.world.keys.values()]
    name = by.dice.choice(names) if by.odds(0.1) else f"k{number}"
    scopes = [] if by.odds(0.5) else by.some(_SCOPES, 8)
    for_whom = {"owner_id": by.one(by.world.users, "u")} if by.odds(0.5) else {}
    return {"api_key": {"name": name, "scopes": scopes, **_end(by)}, **for_whom}


def _end(by: Dice) -> dict[str, Any]:
    return by.maybe(0.3, expire_time=f"{by.dice.choice([2098, 2099])}-01-01T00:00:00Z")


@sends("UpdateApiKey")
def _update_key(by: Dice, number: int) -> dict[str, Any]:
    """Change a key; what the mask names and is not sent is cleared."""
    near = [key for key in by.world.keys.values() if key.owner == by.user]
    name = by.dice.choice(near).name if near and by.odds(0.4) else f"k{number}"
    mask = by.some(("name", "scopes", "expireTime"), 3)
    id = by.mine(_dispensable_keys(by), "k", lambda key: not (key.revoked or key.successor))
    key = {"id": id, "name": name, **_end(by), **by.etag()}
    return {
        "api_key": {**key, **by.maybe(0.7, scopes=by.some(_SCOPES, 8))},
        "update_mask": ",".join(mask),
    }


@sends("GetApiKey")
def _get_key(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.keys, "k")}


@sends("ListApiKeys")
def _list_keys(by: Dice, number: int) -> dict[str, Any]:
    return by.listing(**by.maybe(0.5, show_revoked=True))


@sends("DeleteApiKey", "RevokeApiKey", "DisableApiKey", "EnableApiKey")
def _change_key(by: Dice, number: int) -> dict[str, Any]:
    disabled, keys = by.odds(0.4), _dispensable_keys(by)
    return {"id": by.mine(keys, "k", lambda key: key.disabled or not disabled), **by.etag()}


def _dispensable_keys(by: Dice) -> dict[str, Key]:
    return {label: key for label, key in by.world.keys.items() if label != ROOT_KEY}


@sends("RotateApiKey")
def _rotate_key(by: Dice, number: int) -> dict[str, Any]:
    id = by.mine(_dispensable_keys(by), "k", lambda key: by.world.state_of(key) == "ACTIVE")
    return {"id": id, "grace": by.dice.choice(["0s", "86400s"]), **by.etag()}


@sends("VerifyApiKey")
def _verify_key(by: Dice, number: int) -> dict[str, Any]:
    return {"key": by.mine(by.world.keys, "k"), **by.maybe(0.5, scope=by.dice.choice(_SCOPES))}
