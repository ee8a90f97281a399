"""What is sent with each method in a walk, chosen by the dice of ``choices.py``: here over places and lists.

Over users and keys it stands in ``credentials.py``, over documents, jobs and workers in ``tasks.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

from tests.model.jobs import FINAL
from tests.model.quotas import RESOURCES, uses
from tests.model.things import Job
from tests.model.world import World

LEASE: Final = "3600s"
LONG: Final = "604800s"
SIZES: Final = (1, 10, 25, 60)
"""Of documents, in bytes."""


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


@sends("ListSessions", "ListServers")
def _list(by: Dice, number: int) -> dict[str, Any]:
    return by.listing()


@sends("ListUsers", "ListWorkers")
def _list_all(by: Dice, number: int) -> dict[str, Any]:
    return {"page_size": by.dice.choice([1, 3, 1000])}


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


@sends("UpdateServer")
def _update_server(by: Dice, number: int) -> dict[str, Any]:
    """Change a server; what the mask names and is not sent is cleared."""
    names = [server.name for server in by.world.servers.values()]
    name = by.dice.choice(names) if names and by.odds(0.3) else f"v{number}"
    server = {"id": by.mine(by.world.servers, "v"), "name": name, **by.maybe(0.5, active=True)}
    server |= by.maybe(0.5, username=f"n{number}") | by.maybe(0.5, password=f"sesame{number}")
    mask = by.some(("name", "username", "password", "active"), 4)
    return {"server": {**server, **by.etag()}, "update_mask": ",".join(mask)}


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


@sends("GetQuotas", "GetUsage")
def _get_quotas(by: Dice, number: int) -> dict[str, Any]:
    return by.maybe(0.4, owner_id=by.dice.choice(["me", by.one(by.world.users, "u")]))


@sends("SetQuotas")
def _set_quotas(by: Dice, number: int) -> dict[str, Any]:
    """Set some limits near to what there is, mostly of who has documents, or give up some."""
    owners = [document.owner for document in by.world.documents.values()]
    owner = by.dice.choice(owners) if owners and by.odds(0.7) else by.one(by.world.users, "u")
    named = by.some(RESOURCES, 4)
    has, limits = uses(by.world, owner), {}
    for resource in named if by.odds(0.6) else ():
        unit = SIZES[1] if resource == "storage_bytes" else 1
        limits[resource] = max(0, has[resource] + by.dice.choice([-1, 0, 0, 1, 2, 4]) * unit)
    mask = ",".join(re.sub("_(.)", lambda found: found[1].upper(), name) for name in named)
    return {"quotas": {"owner_id": owner, **limits, **by.etag()}, "update_mask": mask}


def open_jobs(job: Job) -> bool:
    """Whether a job has not ended."""
    return job.state not in FINAL
