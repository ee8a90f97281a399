"""The model of servers, databases and grants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.model.steps import Step, denied, missing, present, stuck, taken, wrong_field
from tests.model.things import OWNER, READER, Database, Grant, Server
from tests.model.world import Given, Principal, World, check_etag, of, rule

_LEVELS = {1: "READER", 2: "WRITER"}


@rule("CreateServer")
def _create_server(world: World, caller: Principal, given: Given, step: Step) -> Any:
    owner, name = _owner(world, caller, given), given["server"]["name"]
    _refuse_taken_server(world, owner, name)
    server = world.servers[step.made] = Server(step.made, owner, name)
    return _server(server)


def _refuse_taken_server(world: World, owner: str, name: str, besides: str = "") -> None:
    for server in world.servers.values():
        if server.owner == owner and server.name == name and server.id != besides:
            raise taken()


def _server(server: Server) -> dict[str, Any]:
    return present(
        id=server.id,
        owner_id=server.owner,
        name=server.name,
        kind="QDRANT",
        host="h",
        port=1,
        username=server.username,
        has_password=server.has_password,
        active=server.active,
    )


@rule("GetServer")
def _get_server(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return _server(world.own(world.servers, given["id"], caller))


@rule("ListServers")
def _list_servers(world: World, caller: Principal, given: Given, step: Step) -> Any:
    owner = world.owner_of_list(caller, given.get("owner_id", ""))
    return [_server(server) for server in of(owner, world.servers.values())]


@rule("UpdateServer")
def _update_server(world: World, caller: Principal, given: Given, step: Step) -> Any:
    sent, named = given["server"], given["update_mask"].split(",")
    server = world.own(world.servers, sent["id"], caller)
    check_etag(sent)
    if "name" in named:
        _refuse_taken_server(world, server.owner, sent["name"], besides=server.id)
        server.name = sent["name"]
    if "username" in named:
        server.username = sent.get("username", "")
    if "password" in named:
        server.has_password = bool(sent.get("password"))
    if "active" in named:
        server.active = sent.get("active", False)
    return _server(server)


@rule("DeleteServer")
def _delete_server(world: World, caller: Principal, given: Given, step: Step) -> Any:
    server = world.own(world.servers, given["id"], caller)
    check_etag(given)
    databases = [database for database in world.databases.values() if database.server == server.id]
    if databases and not given.get("force"):
        raise stuck("HAS_CHILDREN")
    detached = sum(_remove(world, database) for database in databases)
    del world.servers[server.id]
    return present(deleted_databases=len(databases), detached_documents=detached)


def _owner(world: World, caller: Principal, given: Given) -> str:
    owner = world.owner_of_list(caller, given.get("owner_id", ""))
    if owner not in world.users:
        raise missing()
    return owner


def shown_database(world: World, database: Database, level: int = 0) -> dict[str, Any]:
    """Give what is shown of a database, to who sees it by a grant of a level or by none."""
    return present(
        id=database.id,
        owner_id=database.owner,
        server_id=database.server,
        name=database.name,
        document_count=_count(world, database),
        content_update_time=True,
        granted_level=_LEVELS.get(level),
    )


def _count(world: World, database: Database) -> int:
    return sum(d.database == database.id and d.state != "DELETED" for d in world.documents.values())


def database_for(world: World, label: str, caller: Principal, needs: int) -> tuple[Database, int]:
    """Give a database, and the level of the grant by which the caller sees it; 0 where it takes none."""
    found = world.shared(world.databases, label, caller, needs, lambda database: database.id)
    return found, 0 if found.owner == caller.user else world.level(label, caller)


@rule("CreateDatabase")
def _create_database(world: World, caller: Principal, given: Given, step: Step) -> Any:
    owner, sent = world.owner_of_list(caller, given.get("owner_id", "")), given["database"]
    server = world.servers.get(sent["server_id"])
    if server is None or server.owner != owner:
        raise missing()
    _refuse_taken(world, owner, sent["name"])
    database = world.databases[step.made] = Database(step.made, owner, server.id, sent["name"])
    return shown_database(world, database)


def _refuse_taken(world: World, owner: str, name: str, besides: str = "") -> None:
    for database in world.databases.values():
        if database.owner == owner and database.name == name and database.id != besides:
            raise taken()


@rule("GetDatabase")
def _get_database(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return shown_database(world, *database_for(world, given["id"], caller, READER))


@rule("ListDatabases")
def _list_databases(world: World, caller: Principal, given: Given, step: Step) -> Any:
    owner = world.owner_of_list(caller, given.get("owner_id", ""))
    if not given.get("shared"):
        return [shown_database(world, database) for database in of(owner, world.databases.values())]
    if given.get("owner_id"):
        raise wrong_field()
    grants = _newest_first(world, grantee=owner)
    return [shown_database(world, world.databases[grant.database], grant.level) for grant in grants]


@rule("UpdateDatabase")
def _update_database(world: World, caller: Principal, given: Given, step: Step) -> Any:
    sent = given["database"]
    database, _ = database_for(world, sent["id"], caller, OWNER)
    check_etag(sent)
    _refuse_taken(world, database.owner, sent["name"], besides=database.id)
    database.name = sent["name"]
    return shown_database(world, database)


@rule("DeleteDatabase")
def _delete_database(world: World, caller: Principal, given: Given, step: Step) -> Any:
    database, _ = database_for(world, given["id"], caller, OWNER)
    check_etag(given)
    if _count(world, database) and not given.get("force"):
        raise stuck("HAS_CHILDREN")
    return present(detached_documents=_remove(world, database))


def _remove(world: World, database: Database) -> int:
    """Remove a database, and give the number of live documents that are in none now."""
    detached = _count(world, database)
    for document in world.documents.values():
        if document.database == database.id:
            document.database = ""
    for place in [place for place in world.grants if place[0] == database.id]:
        del world.grants[place]
    del world.databases[database.id]
    return detached


@rule("RecountDocuments")
def _recount(world: World, caller: Principal, given: Given, step: Step) -> Any:
    database, _ = database_for(world, given["id"], caller, OWNER)
    return shown_database(world, database)


@rule("GrantAccess")
def _grant(world: World, caller: Principal, given: Given, step: Step) -> Any:
    database, _ = database_for(world, given["database_id"], caller, OWNER)
    grantee = given["grantee_id"]
    if grantee == database.owner:
        raise wrong_field()
    if grantee not in world.users:
        raise missing()
    level = {"GRANT_LEVEL_READER": 1, "GRANT_LEVEL_WRITER": 2}[given["level"]]
    place = (database.id, grantee)
    grant = world.grants.get(place)
    if grant is None:
        grant = Grant(database.id, database.owner, grantee, level, caller.user, step.number)
        world.grants[place] = grant
    elif grant.level != level:
        grant.level, grant.grantor = level, caller.user
    return _shown_grant(grant)


@rule("RevokeAccess")
def _revoke(world: World, caller: Principal, given: Given, step: Step) -> Any:
    if given["grantee_id"] == caller.user and world.grants.pop((given["database_id"], caller.user), None):
        return {}
    database, _ = database_for(world, given["database_id"], caller, OWNER)
    if world.grants.pop((database.id, given["grantee_id"]), None) is None:
        raise missing()
    return {}


@rule("ListGrants")
def _list_grants(world: World, caller: Principal, given: Given, step: Step) -> Any:
    if given.get("database_id"):
        database, _ = database_for(world, given["database_id"], caller, OWNER)
        return [_shown_grant(grant) for grant in _newest_first(world, database=database.id)]
    asked = given.get("grantee_id", "")
    grantee = caller.user if asked in ("", "me", caller.user) else asked
    if grantee != caller.user and not caller.is_admin:
        raise denied("OWNER_NOT_ALLOWED")
    return [_shown_grant(grant) for grant in _newest_first(world, grantee=grantee)]


def _newest_first(world: World, **wanted: str) -> list[Grant]:
    grants = sorted(world.grants.values(), key=lambda grant: -grant.made)
    return [grant for grant in grants if all(getattr(grant, n) == value for n, value in wanted.items())]


def _shown_grant(grant: Grant) -> Mapping[str, Any]:
    return present(
        database_id=grant.database,
        owner_id=grant.owner,
        grantee_id=grant.grantee,
        level=_LEVELS[grant.level],
        grantor_id=grant.grantor,
    )
