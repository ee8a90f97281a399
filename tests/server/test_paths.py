"""Calls that no client library makes, as their path or a header is no text: answered, and nobody is hurt."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from tests.backends.daemon import free_port
from tests.server.processes import served

_SQLITE = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
_DATA, _HEADERS, _SETTINGS, _END_STREAM, _END_HEADERS = 0, 1, 4, 1, 4
_EMPTY_MESSAGE = b"\0" * 5
_PATHS = (b"/\xff/\xfe", b"/moragmeta.v1.UserService/\x80", b"\xc3\x28", b"/" + b"\xf0" * 200)


def _literal(text: bytes) -> bytes:
    """Write a text of HPACK (RFC 7541, 5.2) as it is."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    return bytes([127, len(text) - 127]) + text


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def _call(target: str, path: bytes, more: Mapping[bytes, bytes] = MappingProxyType({})) -> bytes:
    """Make a call with any path and headers, and return what comes back at first."""
    fields = {b":path": path, b":authority": b"x", b"te": b"trailers", b"content-type": b"application/grpc"}
    fields |= more
    block = b"\x83\x86" + b"".join(b"\x00" + _literal(n) + _literal(v) for n, v in fields.items())
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b""))
        connection.sendall(_frame(_HEADERS, _END_HEADERS, 1, block))
        connection.sendall(_frame(_DATA, _END_STREAM, 1, _EMPTY_MESSAGE))
        said = b""
        while b"grpc-status" not in said and (part := connection.recv(65_536)):
            said += part
        return said


def _unknown(target: str) -> grpc.StatusCode:
    with grpc.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        method: Any = channel.unary_unary("/moragmeta.v1.UserService/Nothing", None, None)
        with pytest.raises(grpc.RpcError) as caught:
            method(b"", timeout=5)
    code: grpc.StatusCode = caught.value.code()
    return code


@_SQLITE
@pytest.mark.parametrize("path", _PATHS)
def test_a_path_that_is_no_text_ends_nobodys_calls(tmp_path: Path, database_url: str, path: bytes) -> None:
    """Bytes that are not UTF-8 are no method, at both ports, which go on to serve."""
    health = f"127.0.0.1:{free_port()}"
    with served(tmp_path, database_url, HEALTH_ADDRESS=health) as service:
        for target in (service.target, health):
            assert b"grpc-status" in _call(target, path)
            assert _unknown(target) is grpc.StatusCode.UNIMPLEMENTED


@_SQLITE
def test_a_header_that_is_no_text_is_kept_out_of_the_log(tmp_path: Path, database_url: str) -> None:
    """Anybody may send one: it is no line of the log, let alone a traceback with its value."""
    with served(tmp_path, database_url) as service:
        said = _call(service.target, b"/moragmeta.v1.UserService/GetUser", {b"cookie": b"mine=\xff\xfe"})
        assert b"grpc-status" in said
        assert service.end() == 0
        assert "Traceback" not in service.log
        assert "mine=" not in service.log
