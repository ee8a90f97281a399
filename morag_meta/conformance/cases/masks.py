"""What an update writes (AIP-134)."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import databases_pb2
from moragmeta.v1 import servers_pb2 as pb

AREA = Area("update masks")


def _update(bench: Bench, server_id: str, *paths: str, **fields: Any) -> pb.Server:
    request = pb.UpdateServerRequest(server=pb.Server(id=server_id, **fields))
    if paths:
        request.update_mask.CopyFrom(FieldMask(paths=paths))
    return bench.mine.servers.UpdateServer(request)


@AREA.case
def without_a_mask_what_is_populated_is_written(bench: Bench) -> None:
    """Without a mask every populated field is written, and no other."""
    before = bench.add_server(username="reader", active=True)
    after = _update(bench, before.id, port=7000)
    same("port", after.port, 7000)
    same("the rest", (after.name, after.username, after.active), (before.name, "reader", True))


@AREA.case
def a_mask_writes_what_it_names(bench: Bench) -> None:
    """A mask writes the fields that it names, and leaves those that are sent beside them."""
    before = bench.add_server()
    after = _update(bench, before.id, "host", host="other.example.com", port=7000)
    same("host and port", (after.host, after.port), ("other.example.com", before.port))


@AREA.case
def a_named_field_that_is_not_set_is_cleared(bench: Bench) -> None:
    """A field that the mask names and the message leaves out is cleared."""
    before = bench.add_server(username="reader", active=True)
    after = _update(bench, before.id, "username", "active")
    same("whether they are set", (after.HasField("username"), after.active), (False, False))
    same("what is not named", (after.id, after.port), (before.id, 6333))


@AREA.case
def a_star_writes_every_field(bench: Bench) -> None:
    """The mask `*` writes every writable field: what is not set is cleared."""
    before = bench.add_server(username="reader", default_collection="texts")
    wanted = bench.a_server(host="other.example.com")
    fields = {"name": wanted.name, "kind": wanted.kind, "host": wanted.host, "port": wanted.port}
    after = _update(bench, before.id, "*", **fields)
    same("host", after.host, "other.example.com")
    same("what is set", (after.HasField("username"), after.HasField("default_collection")), (False, False))


@AREA.case
def an_unknown_path_is_refused(bench: Bench) -> None:
    """A mask that names no field of the resource is INVALID_ARGUMENT, and nothing is written."""
    before = bench.add_server()
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        _update(bench, before.id, "port", "colour", port=7000)
    after = bench.mine.servers.GetServer(pb.GetServerRequest(id=before.id))
    same("the server", after, before)


@AREA.case
def an_output_only_path_is_refused(bench: Bench) -> None:
    """A mask that names an output-only field is INVALID_ARGUMENT."""
    before = bench.add_server()
    for path in ("owner_id", "create_time", "has_password"):
        with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
            _update(bench, before.id, path)


@AREA.case
def an_immutable_path_is_refused(bench: Bench) -> None:
    """A mask that names a field which never changes is INVALID_ARGUMENT."""
    database = databases_pb2.Database(id=bench.add_database().id, server_id=bench.add_server().id)
    request = databases_pb2.UpdateDatabaseRequest(
        database=database, update_mask=FieldMask(paths=["server_id"])
    )
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        bench.mine.databases.UpdateDatabase(request)


@AREA.case
def a_required_field_cannot_be_cleared(bench: Bench) -> None:
    """A mask that names a required field which is not set is INVALID_ARGUMENT, naming the field."""
    before = bench.add_server()
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.name"):
        _update(bench, before.id, "name")


@AREA.case
def the_update_of_nothing_is_not_found(bench: Bench) -> None:
    """The update of what does not exist is NOT_FOUND, and creates nothing."""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="server"):
        _update(bench, missing_id(), "port", port=7000)
