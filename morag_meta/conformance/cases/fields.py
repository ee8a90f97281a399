"""What a field may hold, and what a refusal of it says."""

from __future__ import annotations

from typing import Any

import grpc

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.caller import answered
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import Unmet, holds, read, refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import servers_pb2 as pb

AREA = Area("fields")


def _create(bench: Bench, **fields: Any) -> pb.Server:
    return bench.add_server(**fields)


@AREA.case
def a_required_field_is_missed(bench: Bench) -> None:
    """A required field that is not set is INVALID_ARGUMENT, named by its path."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.host"):
        _create(bench, host="")


@AREA.case
def every_wrong_field_is_named(bench: Bench) -> None:
    """One answer names every field that is wrong."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.name", "server.host", "server.port"):
        _create(bench, name="x" * 256, host="two words", port=65536)


@AREA.case
def an_unknown_number_of_an_enum_is_refused(bench: Bench) -> None:
    """A number that the enum does not have is INVALID_ARGUMENT."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.kind"):
        _create(bench, kind=99)


@AREA.case
def lengths_are_counted_in_characters(bench: Bench) -> None:
    """A name of 255 characters beyond ASCII is kept exactly; one of 256 is INVALID_ARGUMENT."""
    name = (bench.name() + "é😀" * 128)[:255]
    same("the name that is kept", _create(bench, name=name).name, name)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.name"):
        _create(bench, name=name + "é")


@AREA.case
def a_nul_character_is_refused(bench: Bench) -> None:
    """A text with a NUL character is INVALID_ARGUMENT."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.username"):
        _create(bench, username="a\0b")


@AREA.case
def a_number_out_of_range_is_refused(bench: Bench) -> None:
    """A number beyond its limits is INVALID_ARGUMENT."""
    for port in (-1, 65536):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.port"):
            _create(bench, port=port)


@AREA.case
def an_id_that_is_none_is_refused(bench: Bench) -> None:
    """An id that is no UUID in its canonical form is INVALID_ARGUMENT, not NOT_FOUND."""
    for id_ in ("", "1", missing_id().replace("-", ""), missing_id() + "0"):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "id"):
            bench.mine.servers.GetServer(pb.GetServerRequest(id=id_))


@AREA.case
def output_only_fields_are_ignored_on_create(bench: Bench) -> None:
    """What only the server sets is ignored on create."""
    chosen = missing_id()
    made = _create(bench, id=chosen, owner_id=chosen, has_password=True)
    holds("an id that the server made", fact=made.id not in ("", chosen), seen=made.id)
    same("owner and has_password", (made.owner_id, made.has_password), (bench.me.id, False))


@AREA.case
def bytes_that_are_no_message_are_refused(bench: Bench) -> None:
    """Bytes that are not a message of the method are INVALID_ARGUMENT."""
    with refused("INVALID_ARGUMENT", "UNDECODABLE_REQUEST"):
        bench.mine.send("ServerService.GetServer", b"\x0a\xff")


@AREA.case
def unknown_fields_are_ignored(bench: Bench) -> None:
    """A field that the server does not know is ignored, so that newer clients are served."""
    server = bench.add_server()
    body = pb.GetServerRequest(id=server.id).SerializeToString() + b"\xfa\x3e\x01x"
    got = pb.Server.FromString(bench.mine.send("ServerService.GetServer", body))
    holds("the server", fact=bool(got.id) and got == server, seen=got.id or "an empty message")


@AREA.case
def an_unknown_method_is_unimplemented(bench: Bench) -> None:
    """A method that the service does not have is UNIMPLEMENTED."""
    try:
        bench.mine.send("ServerService.PaintServer", b"")
    except grpc.RpcError as error:
        same("the code", read(error).code, "UNIMPLEMENTED")
    else:
        raise Unmet("UNIMPLEMENTED", "OK")


@AREA.case
def an_x_request_id_comes_back(bench: Bench) -> None:
    """The `x-request-id` that is sent comes back in the trailing metadata; else the service makes one."""
    server = bench.add_server()
    request, sent = pb.GetServerRequest(id=server.id), bench.name()
    _, call = bench.mine.servers.GetServer.with_call(request, metadata=(("x-request-id", sent),))
    same("x-request-id", dict(call.trailing_metadata() or ()).get("x-request-id"), sent)
    _, trailers = answered(bench.mine.servers.GetServer, request)
    same("whether one is made", bool(trailers.get("x-request-id")), True)
