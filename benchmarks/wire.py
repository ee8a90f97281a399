"""The cheapest client that can call gRPC: HTTP/2 frames on a socket, and no more of it than that.

A gRPC library in the measuring process would cost as much per call as the server does, and the two share
the machine's cores. What is called when, and what is measured, is the matter of ``load.py`` and
``watchers.py``. Frames follow RFC 9113, headers RFC 7541; a server that is told to keep no table writes
every header out, so that a status can be found without decoding.
"""

from __future__ import annotations

import selectors
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_LARGEST_WINDOW: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535
_GRANT: Final = 2**30
_STATUS_OK: Final = b"grpc-status\x010"
_READ: Final = 1 << 18
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Receive = Callable[[int, bytes], None]
Finish = Callable[[int, bool], None]


class Broken(RuntimeError):
    """The server ended a connection."""


def call_headers(path: str, credential: tuple[str, str] | None = None) -> bytes:
    """Give the header block of a call, ``credential`` being a header's name and value."""
    block = b"\x83\x86" + b"\x04" + _text(path) + b"\x01" + _text("localhost")
    block += b"\x0f\x10" + _text("application/grpc") + b"\x00" + _text("te") + _text("trailers")
    if credential is not None:
        block += b"\x00" + _text(credential[0]) + _text(credential[1])
    return block


def _text(value: str) -> bytes:
    data = value.encode("ascii")
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, coded = len(data) - 127, bytearray(b"\x7f")
    while rest >= 128:
        coded.append(rest % 128 + 128)
        rest //= 128
    return bytes(coded) + bytes([rest]) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


class Connection:
    """One connection; ``receive`` hears of messages and ``finish`` of ends, both by the call's number."""

    def __init__(
        self, port: int, receive: Receive, finish: Finish, tls: ssl.SSLContext | None = None
    ) -> None:
        """Connect to a port of this machine, by TLS where that is given."""
        self._receive = receive
        self._finish = finish
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._socket.settimeout(0)
        self._next = 1
        self._unread = b""
        self._unsent = bytearray(_PREFACE)
        table, push, window = (1, 0), (2, 0), (4, _LARGEST_WINDOW)
        settings = b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in (table, push, window))
        self._unsent += _frame(_SETTINGS, 0, 0, settings)
        self._grant(_LARGEST_WINDOW - _FIRST_WINDOW)
        self._taken = 0
        self._partial: dict[int, bytes] = {}

    def fileno(self) -> int:
        """Let a selector watch the connection."""
        return self._socket.fileno()

    def call(self, headers: bytes, message: bytes) -> int:
        """Begin a call, sent with the next ``flush``; give its number."""
        number = self._next
        self._next += 2
        body = b"\0" + len(message).to_bytes(4) + message
        self._unsent += _frame(_HEADERS, _END_HEADERS, number, headers)
        self._unsent += _frame(_DATA, _END_STREAM, number, body)
        return number

    def flush(self) -> None:
        """Send what was begun."""
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except _NOT_NOW:
                self._socket.settimeout(None)
                self._socket.sendall(self._unsent)
                self._socket.settimeout(0)
                sent = len(self._unsent)
            del self._unsent[:sent]

    def read(self) -> None:
        """Take what has arrived and tell of it.

        Raises:
            Broken: the server ended the connection.
        """
        try:
            fresh = self._socket.recv(_READ)
            while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
                fresh += self._socket.recv(_READ)  # of which no selector tells
        except _NOT_NOW:
            return
        if not fresh:
            raise Broken("the server closed the connection")
        data = self._unread + fresh if self._unread else fresh
        position, end = 0, len(data)
        while end - position >= 9:
            length = int.from_bytes(data[position : position + 3])
            if end - position < 9 + length:
                break
            kind, flags = data[position + 3], data[position + 4]
            stream = int.from_bytes(data[position + 5 : position + 9])
            self._take(kind, flags, stream, data[position + 9 : position + 9 + length])
            position += 9 + length
        self._unread = data[position:]
        self.flush()

    def close(self) -> None:
        """End the connection with all its calls."""
        self._socket.close()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(stream, payload)
        elif kind == _HEADERS:
            if flags & _END_STREAM:
                self._partial.pop(stream, None)
                self._finish(stream, _STATUS_OK in payload)
        elif kind == _RESET:
            self._partial.pop(stream, None)
            self._finish(stream, False)  # noqa: FBT003 - a callback
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self._unsent += _frame(kind, _ACK, 0, payload if kind == _PING else b"")
        elif kind == _GOAWAY:
            raise Broken(f"the server said goodbye: {payload[8:]!r}")

    def _take_data(self, stream: int, payload: bytes) -> None:
        self._taken += len(payload)
        if self._taken >= _GRANT:
            self._grant(self._taken)
            self._taken = 0
        held = self._partial.pop(stream, b"") + payload
        while len(held) >= 5:
            length = int.from_bytes(held[1:5])
            if len(held) < 5 + length:
                break
            self._receive(stream, held[5 : 5 + length])
            held = held[5 + length :]
        if held:
            self._partial[stream] = held

    def _grant(self, size: int) -> None:
        self._unsent += _frame(_WINDOW, 0, 0, size.to_bytes(4))


def read_all(connections: Sequence[Connection], until: Callable[[], bool], look: float = 0.05) -> None:
    """Read from all connections until something has come true, looking each ``look`` seconds at least."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.flush()
            selector.register(connection, selectors.EVENT_READ, connection)
        while not until():
            for key, _ in selector.select(look):
                key.data.read()
