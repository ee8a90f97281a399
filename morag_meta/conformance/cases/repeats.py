"""Request ids: a call that is sent again does nothing again (AIP-155)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.caller import Caller, answered
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from moragmeta.v1 import databases_pb2
from moragmeta.v1 import servers_pb2 as pb

AREA = Area("request ids")
_REPLAYED = "morag-replayed"


def _create(bench: Bench, request: pb.CreateServerRequest, by: Caller | None = None) -> tuple[pb.Server, Any]:
    """Create a server; give it, and whether the answer says that it is a repeat."""
    caller = by or bench.mine
    made, trailers = answered(caller.servers.CreateServer, request)
    bench.later(f"server {made.id}", lambda: _delete(caller, made.id))
    return made, trailers.get(_REPLAYED)


def _delete(caller: Caller, server_id: str, request_id: str = "") -> Any:
    request = pb.DeleteServerRequest(id=server_id, force=True, request_id=request_id)
    return caller.servers.DeleteServer(request)


def _named(bench: Bench) -> pb.CreateServerRequest:
    return pb.CreateServerRequest(server=bench.a_server(), request_id=bench.name())


@AREA.case
def a_repeat_does_nothing_again(bench: Bench) -> None:
    """A repeated create answers the same resource, creates no other, and says that it is a repeat."""
    request = _named(bench)
    first, said = _create(bench, request)
    same(f"{_REPLAYED} of the first answer", said, None)
    again, said = _create(bench, request)
    same(f"{_REPLAYED} of the second answer", said, "true")
    same("the second answer", again, first)
    listed = bench.mine.servers.ListServers(pb.ListServersRequest(name_contains=request.server.name))
    same("servers of that name", len(listed.servers), 1)


@AREA.case
def a_repeat_answers_what_is_now(bench: Bench) -> None:
    """A repeated create answers with the resource as it is by then."""
    request = _named(bench)
    made, _ = _create(bench, request)
    bench.mine.servers.UpdateServer(pb.UpdateServerRequest(server=pb.Server(id=made.id, port=7000)))
    again, said = _create(bench, request)
    same("the port, and whether it is a repeat", (again.port, said), (7000, "true"))


@AREA.case
def another_body_is_refused(bench: Bench) -> None:
    """A request id with another body is INVALID_ARGUMENT, and nothing is created."""
    request = _named(bench)
    _create(bench, request)
    request.server.port = 7000
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id", request_id=request.request_id):
        _create(bench, request)


@AREA.case
def an_id_holds_for_its_method(bench: Bench) -> None:
    """The same id with another method is another request."""
    request = _named(bench)
    server, _ = _create(bench, request)
    database = databases_pb2.Database(name=bench.name(), server_id=server.id)
    asked = databases_pb2.CreateDatabaseRequest(database=database, request_id=request.request_id)
    made, trailers = answered(bench.mine.databases.CreateDatabase, asked)
    same("the name, and whether it is a repeat", (made.name, trailers.get(_REPLAYED)), (database.name, None))


@AREA.admin_case
def an_id_holds_for_its_caller(bench: Bench) -> None:
    """The same id from another user is another request."""
    request = _named(bench)
    first, _ = _create(bench, request)
    second, said = _create(bench, request, bench.other.caller)
    same("whether both are one", (second.id == first.id, said), (False, None))


@AREA.case
def an_update_is_repeated_safely(bench: Bench) -> None:
    """A repeated update does not undo what came after it."""
    server = bench.add_server()
    request = pb.UpdateServerRequest(server=pb.Server(id=server.id, port=7000), request_id=bench.name())
    bench.mine.servers.UpdateServer(request)
    later = pb.UpdateServerRequest(server=pb.Server(id=server.id, port=8000))
    bench.mine.servers.UpdateServer(later)
    again, trailers = answered(bench.mine.servers.UpdateServer, request)
    same("the port, and whether it is a repeat", (again.port, trailers.get(_REPLAYED)), (8000, "true"))


@AREA.case
def a_deletion_is_repeated_safely(bench: Bench) -> None:
    """A repeated deletion answers the same instead of NOT_FOUND."""
    server, request_id = bench.add_server(), bench.name()
    first = _delete(bench.mine, server.id, request_id)
    same("the second answer", _delete(bench.mine, server.id, request_id), first)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        _delete(bench.mine, server.id)


@AREA.case
def repeats_at_once_create_one(bench: Bench) -> None:
    """Of one request sent six times at once one creates, and all answer the same resource."""
    request = _named(bench)
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: _create(bench, request), range(6)))
    same("different resources", len({server.id for server, _ in made}), 1)
    same("answers that are no repeat", [said for _, said in made].count(None), 1)


@AREA.case
def the_form_of_an_id_is_checked(bench: Bench) -> None:
    """A request id of 65 characters, or with a space or a letter beyond ASCII, is INVALID_ARGUMENT."""
    for request_id in ("x" * 65, "a b", "ü"):
        request = pb.CreateServerRequest(server=bench.a_server(), request_id=request_id)
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "request_id"):
            _create(bench, request)
