"""Servers: credentials that are only written, names, settings, and what hangs on a server."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from moragmeta.v1 import databases_pb2
from moragmeta.v1 import servers_pb2 as pb

AREA = Area("servers")


def _get(bench: Bench, server_id: str) -> pb.Server:
    return bench.mine.servers.GetServer(pb.GetServerRequest(id=server_id))


def _update(bench: Bench, server: pb.Server, *paths: str) -> pb.Server:
    mask = FieldMask(paths=paths) if paths else None
    return bench.mine.servers.UpdateServer(pb.UpdateServerRequest(server=server, update_mask=mask))


def _listed(bench: Bench, **fields: object) -> list[str]:
    request = pb.ListServersRequest(**fields)  # type: ignore[arg-type]
    return [server.id for server in bench.mine.servers.ListServers(request).servers]


@AREA.case
def a_server_is_kept_as_given(bench: Bench) -> None:
    """A server is answered as it was registered, by create, get and list alike."""
    made = bench.add_server(username="reader", default_database="main", default_collection="texts")
    same(
        "what create answers", (made.username, made.default_database, made.active), ("reader", "main", False)
    )
    same("what get answers", _get(bench, made.id), made)
    request = pb.ListServersRequest(name_contains=made.name)
    same("what list answers", list(bench.mine.servers.ListServers(request).servers), [made])


@AREA.case
def credentials_are_only_written(bench: Bench) -> None:
    """No answer holds a server's password or API key; two flags say that they are stored."""
    password, api_key = bench.secret(), bench.secret()
    made = bench.add_server(password=password, api_key=api_key)
    same("the flags", (made.has_password, made.has_api_key), (True, True))
    answers = (
        made,
        _get(bench, made.id),
        bench.mine.servers.ListServers(pb.ListServersRequest(name_contains=made.name)),
        _update(bench, pb.Server(id=made.id, port=7000)),
    )
    held = [
        secret.encode() in answer.SerializeToString() for answer in answers for secret in (password, api_key)
    ]
    same("whether create, get, list and update hold one", any(held), False)


@AREA.case
def credentials_stay_until_they_are_named(bench: Bench) -> None:
    """An update of other fields keeps the credentials; a mask that names one alone removes it."""
    made = bench.add_server(password=bench.secret(), api_key=bench.secret())
    after = _update(bench, pb.Server(id=made.id, port=7000))
    same("the flags after another change", (after.has_password, after.has_api_key), (True, True))
    after = _update(bench, pb.Server(id=made.id), "password")
    same("the flags after a removal", (after.has_password, after.has_api_key), (False, True))


@AREA.case
def a_name_is_taken_once(bench: Bench) -> None:
    """A name that another server of the owner has is ALREADY_EXISTS, on create and on update."""
    first, second = bench.add_server(), bench.add_server()
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS", resource_type="server", field="name"):
        bench.add_server(name=first.name)
    with refused("ALREADY_EXISTS", "RESOURCE_EXISTS", resource_type="server", field="name"):
        _update(bench, pb.Server(id=second.id, name=first.name))


@AREA.case
def names_are_compared_exactly(bench: Bench) -> None:
    """Names that differ by letter case, by an accent or by a space at the end are different."""
    name = bench.name()
    for each in (name, name.upper(), name + "e", name + "é", name + " "):
        same("the name that is kept", bench.add_server(name=each).name, each)


@AREA.admin_case
def names_are_each_owners_own(bench: Bench) -> None:
    """Two owners may use one name."""
    name = bench.add_server(name=bench.name()).name
    holds("a name", fact=bool(name), seen="none")
    same("the other's name", bench.add_server(bench.other.caller, name=name).name, name)


@AREA.case
def settings_are_kept_exactly(bench: Bench) -> None:
    """The config is kept as it is: texts, numbers, nested values, nulls and empty keys."""
    config = Struct()
    config.update({"deep": {"list": [1, 2.5, None, True, "é\n"]}, "": "empty", "n": -0.1, "none": None})
    same("the config", _get(bench, bench.add_server(config=config).id).config, config)


@AREA.case
def settings_are_limited(bench: Bench) -> None:
    """A config over 65,536 bytes, over 16 levels, or with a number that is not finite is refused."""
    deep: dict[str, object] = {}
    for _ in range(17):
        deep = {"x": deep}
    values: list[Any] = [{"x": "x" * 65_536}, deep, {"x": float("nan")}, {"x": float("inf")}, {"x": "a\0"}]
    for value in values:
        config = Struct()
        config.update(value)
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.config"):
            bench.add_server(config=config)


@AREA.case
def filters_must_all_match(bench: Bench) -> None:
    """A list shows the servers that match every filter."""
    stem = bench.name()
    one = bench.add_server(name=f"{stem}-one", active=True).id
    two = bench.add_server(name=f"{stem}-two", kind=pb.SERVER_KIND_NEO4J).id
    same("by name", _listed(bench, name_contains=stem), [two, one])
    same("by name, letter case counting", _listed(bench, name_contains=stem.upper()), [])
    same("by kind", _listed(bench, name_contains=stem, kinds=[pb.SERVER_KIND_NEO4J]), [two])
    same("by activity", _listed(bench, name_contains=stem, active=True), [one])
    same("by both", _listed(bench, name_contains=stem, active=True, kinds=[pb.SERVER_KIND_NEO4J]), [])


@AREA.case
def signs_of_a_pattern_mean_themselves(bench: Bench) -> None:
    r"""In name_contains `%`, `_` and `\` mean themselves."""
    stem = bench.name()
    wanted = bench.add_server(name=stem + r"%_\x").id
    bench.add_server(name=f"{stem}abcx")
    same("by name", _listed(bench, name_contains=stem + r"%_\x"), [wanted])


@AREA.case
def a_server_with_databases_is_kept(bench: Bench) -> None:
    """A server with databases is FAILED_PRECONDITION to delete, and stays."""
    database = bench.add_database()
    with refused("FAILED_PRECONDITION", "HAS_CHILDREN", children="databases", count="1"):
        bench.mine.servers.DeleteServer(pb.DeleteServerRequest(id=database.server_id))
    same("the server", _get(bench, database.server_id).id, database.server_id)


@AREA.case
def force_takes_the_databases_along(bench: Bench) -> None:
    """With force a server goes with its databases, whose documents stay and are in none."""
    database = bench.add_database()
    document = bench.add_document(database_id=database.id)
    answer = bench.mine.servers.DeleteServer(pb.DeleteServerRequest(id=database.server_id, force=True))
    counts = (answer.deleted_databases, answer.detached_documents)
    same("deleted databases and detached documents", counts, (1, 1))
    holds(
        "a document in no database",
        fact=not bench.document(document.id).HasField("database_id"),
        seen="a database",
    )
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="database"):
        bench.mine.databases.GetDatabase(databases_pb2.GetDatabaseRequest(id=database.id))
