"""What is not a message of the method is refused in words, for unary calls and streams alike."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from moragmeta.v1 import jobs_pb2, servers_pb2
from tests.refusals import refused
from tests.service import Service

CREATE = "/moragmeta.v1.ServerService/CreateServer"
WATCH = "/moragmeta.v1.JobService/WatchJob"

_ON_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
_REQUESTS = {
    CREATE: servers_pb2.CreateServerRequest(
        server=servers_pb2.Server(name="main", kind=servers_pb2.SERVER_KIND_QDRANT, host="h"), request_id="r"
    ).SerializeToString(),
    WATCH: jobs_pb2.WatchJobRequest(job_id=str(uuid.uuid4()), after_sequence=1 << 40).SerializeToString(),
}
_UNDECODABLE = {
    "garbage": b"\xff\xfe\xfd\xfc not a message",
    "end of a group without its beginning": b"\x0c",
    "a field with the number 0": b"\x02\x01x",
    "a length beyond the end": b"\x0a\x7f",
    "a length beyond 2 GiB": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a varint without an end": b"\x0a" + b"\xff" * 11,
    "invalid UTF-8": b"\x0a\x02\xc3\x28",
    "a surrogate in UTF-8": b"\x0a\x03\xed\xa0\x80",
}


def _send(service: Service, method: str, data: bytes) -> Any:
    """Send bytes as they are, as a user with every right."""
    channel: Any = service.admin.channel.raw
    metadata = (("x-api-key", service.admin_key),)
    if method == WATCH:
        return list(channel.unary_stream(method)(data, metadata=metadata, timeout=10))
    return channel.unary_unary(method)(data, metadata=metadata, timeout=10)


@_ON_SQLITE
@pytest.mark.parametrize("method", [CREATE, WATCH])
@pytest.mark.parametrize("kind", _UNDECODABLE)
def test_undecodable_bytes_are_refused(service: Service, method: str, kind: str) -> None:
    """Bytes that are no message of the method are INVALID_ARGUMENT, and the message was named."""
    data = _UNDECODABLE[kind]
    if method == CREATE and kind in ("invalid UTF-8", "a surrogate in UTF-8"):
        data = b"\x12" + data[1:]  # owner_id: there the first field is a message
    with refused("INVALID_ARGUMENT", "UNDECODABLE_REQUEST") as refusal:
        _send(service, method, data)
    assert "moragmeta.v1." in refusal.message


@_ON_SQLITE
@pytest.mark.parametrize("method", [CREATE, WATCH])
def test_a_truncated_request_is_never_the_servers_fault(service: Service, method: str) -> None:
    """Wherever a request is cut, the answer is INVALID_ARGUMENT, or NOT_FOUND where what is left is whole.

    The request to create lacks a port, so that no part of it can be carried out.
    """
    data = _REQUESTS[method]
    for length in range(len(data)):
        with pytest.raises(grpc.RpcError) as caught:
            _send(service, method, data[:length])
        error: Any = caught.value
        assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), length
        assert "grpc-status-details-bin" in dict(error.trailing_metadata()), length


@_ON_SQLITE
def test_an_empty_request_is_a_message_without_fields(service: Service) -> None:
    """No bytes at all are an empty message, whose missing fields are named."""
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server"):
        _send(service, CREATE, b"")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "job_id"):
        _send(service, WATCH, b"")


@_ON_SQLITE
def test_unknown_fields_are_ignored(service: Service) -> None:
    """A field that a newer client sends does not hinder a call."""
    server = servers_pb2.Server(name="newer", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
    data = servers_pb2.CreateServerRequest(server=server).SerializeToString()
    unknown = b"\xfa\x07\x03new"  # field 127
    created = servers_pb2.Server.FromString(_send(service, CREATE, data + unknown))
    assert created.name == "newer"


@_ON_SQLITE
def test_a_request_nested_beyond_the_parsers_limit_is_refused(service: Service) -> None:
    """A Struct that is nested a thousand times is refused like any undecodable request, not a crash."""
    value = b""
    for _ in range(1000):
        inner = b"\x2a" + _length(value) + value  # Value.struct_value
        entry = b"\x0a\x01k\x12" + _length(inner) + inner
        value = b"\x0a" + _length(entry) + entry  # Struct.fields
    server = b"\x82\x01" + _length(value) + value  # Server.config
    with refused("INVALID_ARGUMENT", "UNDECODABLE_REQUEST"):
        _send(service, CREATE, b"\x0a" + _length(server) + server)


@_ON_SQLITE
def test_what_is_no_reflection_request_is_refused(service: Service) -> None:
    """Tools that ask for the contract are told the same; what came before is answered."""
    ask: Any = service.channel().raw
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    good = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    answers = ask.stream_stream(method)(iter([good, _UNDECODABLE["garbage"]]), timeout=10)
    assert b"JobService" in next(answers)
    with refused("INVALID_ARGUMENT", "UNDECODABLE_REQUEST"):
        next(answers)


def _length(data: bytes) -> bytes:
    number, varint = len(data), b""
    while number > 0x7F:
        varint += bytes([number & 0x7F | 0x80])
        number >>= 7
    return varint + bytes([number])
