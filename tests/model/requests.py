"""What is sent with each method in a walk, chosen by the dice of ``choices.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from tests.model.jobs import FINAL
from tests.model.steps import ROOT, ROOT_KEY
from tests.model.things import Job, Key
from tests.model.world import World

_SCOPES: Final = (
    *("documents:read", "documents:write", "databases:read", "databases:write", "grants:read"),
    *("grants:write", "jobs:read", "jobs:write", "jobs:work", "jobs:work:all", "api_keys:read"),
    *("api_keys:write", "api_keys:verify", "api_keys:verify:all", "users:read", "users:write"),
    *("servers:read", "servers:write"),
)
_PASSWORDS: Final = ("correct horse battery", "another horse battery")
LEASE: Final = "3600s"
LONG: Final = "604800s"
_REPEATABLE: Final = 20
"""Steps within which a refresh token that was replaced is still accepted, as they take no 30 seconds."""


class Dice(Protocol):
    """What chooses."""

    world: World
    user: str
    dice: Any

    def odds(self, probability: float) -> bool:
        """Say yes so often."""

    def one(self, things: Any, prefix: str) -> str:
        """Choose a label, now and then one that never was."""

    def mine(self, things: Any, prefix: str, fit: Callable[[Any], bool] = ...) -> str:
        """Choose a label, mostly of what is near to the caller."""

    def some(self, things: Any, most: int) -> list[Any]:
        """Choose some."""

    def maybe(self, probability: float, **given: Any) -> dict[str, Any]:
        """Give this or nothing."""

    def for_owner(self) -> dict[str, Any]:
        """Choose for whom something is made."""

    def listing(self, **more: Any) -> dict[str, Any]:
        """Choose how a list is paged and whose it is."""

    def etag(self) -> dict[str, Any]:
        """Give a wrong etag now and then."""


Request = Callable[[Dice, int], dict[str, Any]]
REQUESTS: Final[dict[str, Request]] = {}


def sends(*methods: str) -> Callable[[Request], Request]:
    """Say what is sent with some methods."""

    def keep(request: Request) -> Request:
        REQUESTS.update(dict.fromkeys(methods, request))
        return request

    return keep


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


@sends("ListSessions", "ListServers")
def _list(by: Dice, number: int) -> dict[str, Any]:
    return by.listing()


@sends("ListUsers", "ListWorkers")
def _list_all(by: Dice, number: int) -> dict[str, Any]:
    return {"page_size": by.dice.choice([1, 3, 1000])}


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
    end = by.maybe(0.15, expire_time="2099-01-01T00:00:00Z")
    return {"api_key": {"name": name, "scopes": scopes, **end}, **for_whom}


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


@sends("CreateServer")
def _create_server(by: Dice, number: int) -> dict[str, Any]:
    names = [server.name for server in by.world.servers.values()]
    name = by.dice.choice(names) if names and by.odds(0.1) else f"v{number}"
    server = {
        "name": name,
        "kind": "SERVER_KIND_QDRANT",
        "host": "h",
        "port": 1,
        "password": f"sesame{number}",
    }
    return {"server": server, **by.for_owner()}


@sends("GetServer")
def _get_server(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.servers, "v")}


@sends("DeleteServer")
def _delete_server(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.servers, "v"), **by.maybe(0.3, force=True), **by.etag()}


@sends("CreateDatabase")
def _create_database(by: Dice, number: int) -> dict[str, Any]:
    names = [database.name for database in by.world.databases.values()]
    name = by.dice.choice(names) if names and by.odds(0.15) else f"b{number}"
    server = by.mine(by.world.servers, "v", lambda server: server.owner == by.user)
    return {"database": {"name": name, "server_id": server}, **by.for_owner()}


@sends("GetDatabase", "RecountDocuments")
def _get_database(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.databases, "b")}


@sends("ListDatabases")
def _list_databases(by: Dice, number: int) -> dict[str, Any]:
    return by.listing(**by.maybe(0.4, shared=True))


@sends("UpdateDatabase")
def _update_database(by: Dice, number: int) -> dict[str, Any]:
    names = [database.name for database in by.world.databases.values()]
    name = by.dice.choice(names) if names and by.odds(0.3) else f"b{number}"
    return {
        "database": {"id": by.mine(by.world.databases, "b"), "name": name, **by.etag()},
        "update_mask": "name",
    }


@sends("DeleteDatabase")
def _delete_database(by: Dice, number: int) -> dict[str, Any]:
    return {"id": by.mine(by.world.databases, "b"), **by.maybe(0.5, force=True), **by.etag()}


@sends("GrantAccess")
def _grant(by: Dice, number: int) -> dict[str, Any]:
    level = by.dice.choice(["GRANT_LEVEL_READER", "GRANT_LEVEL_WRITER", "GRANT_LEVEL_WRITER"])
    grantee = by.one(by.world.users, "u")
    return {"database_id": by.mine(by.world.databases, "b"), "grantee_id": grantee, "level": level}


@sends("RevokeAccess")
def _revoke(by: Dice, number: int) -> dict[str, Any]:
    mine = [g for g in by.world.grants.values() if g.owner == by.user] or list(by.world.grants.values())
    if mine and by.odds(0.85):
        grant = by.dice.choice(mine)
        return {"database_id": grant.database, "grantee_id": grant.grantee}
    return {"database_id": by.mine(by.world.databases, "b"), "grantee_id": by.one(by.world.users, "u")}


@sends("ListGrants")
def _list_grants(by: Dice, number: int) -> dict[str, Any]:
    size = {"page_size": by.dice.choice([1, 2, 1000])}
    if by.odds(0.5):
        return {**size, "database_id": by.mine(by.world.databases, "b")}
    return {**size, **by.maybe(0.4, grantee_id=by.dice.choice(["me", by.one(by.world.users, "u")]))}


def open_jobs(job: Job) -> bool:
    """Whether a job has not ended."""
    return job.state not in FINAL
