"""The relay passes on everything, loses what it is told to lose, and lets nobody wait for a slow reader."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.robustness.relay import Relay

_MANY = 3_000_000


@dataclass
class Echo:
    """A server that says back what it hears, and remembers it."""

    listener: socket.socket
    heard: list[bytes] = field(default_factory=list)

    def serve(self) -> None:
        """Serve until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(client,), daemon=True).start()

    def _echo(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(65_536):
                self.heard.append(data)
                client.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    """Start a server."""
    server = Echo(socket.create_server(("127.0.0.1", 0)))
    threading.Thread(target=server.serve, daemon=True).start()
    yield server
    server.listener.close()


@pytest.fixture
def relay(echo: Echo) -> Iterator[Relay]:
    """Stand before it."""
    made = Relay(f"tcp://127.0.0.1:{echo.listener.getsockname()[1]}")
    yield made
    made.close()


def _client(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), 5)


def _send_until_cut(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:  # however much the kernel's buffers take
            client.sendall(bytes(_MANY))


def _ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(100)


def test_all_bytes_get_through_in_both_directions(relay: Relay) -> None:
    """Millions of bytes come back as they were sent, though neither side takes them at once."""
    sent = bytes(range(256)) * (_MANY // 256)
    with _client(relay) as client:
        writer = threading.Thread(target=client.sendall, args=(sent,))
        writer.start()
        time.sleep(0.2)
        got = b""
        while len(got) < len(sent):
            got += client.recv(1_000_000)
        writer.join()
    assert got == sent
    assert relay.answers > 1


def test_who_does_not_read_delays_nobody(relay: Relay) -> None:
    """While one client takes nothing, another one is answered."""
    with _client(relay) as slow, _client(relay) as quick:
        writer = threading.Thread(target=_send_until_cut, args=(slow,), daemon=True)
        writer.start()
        time.sleep(0.3)
        assert writer.is_alive()
        assert _ask(quick, b"here") == b"here"
        slow.shutdown(socket.SHUT_RDWR)
        writer.join(5)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_connection_is_cut_where_it_was_told(relay: Relay, echo: Echo, arrives: bool) -> None:
    """The client that sends the words is cut off, once, and the server has heard them or has not."""
    with _client(relay) as client, _client(relay) as other:
        relay.cut_at(b"COMMIT", arrives=arrives)
        assert _ask(client, b"BEGIN") == b"BEGIN"
        assert _ask(client, b"a COMMIT") == b""
        assert relay.caught == client.getsockname()[1]
        assert (b"a COMMIT" in echo.heard) is arrives
        assert _ask(other, b"COMMIT") == b"COMMIT"


@pytest.mark.parametrize("arrives", [True, False])
def test_everything_stands_still_where_it_was_told(relay: Relay, echo: Echo, arrives: bool) -> None:
    """From those words on nobody gets anything, and afterwards all of it."""
    with _client(relay) as client, _client(relay) as other:
        assert _ask(other, b"one") == b"one"
        relay.stall_at(b"COMMIT", arrives=arrives)
        client.sendall(b"COMMIT")
        limit = time.monotonic() + 5
        while not relay.caught and time.monotonic() < limit:
            time.sleep(0.01)
        assert relay.caught == client.getsockname()[1]
        other.sendall(b"two")
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.recv(100)
        assert (b"COMMIT" in echo.heard) is arrives
        relay.flow()
        other.settimeout(5)
        assert (other.recv(100), client.recv(100)) == (b"two", b"COMMIT")


def test_a_stall_that_never_came_is_forgotten(relay: Relay) -> None:
    """Once everything is to flow, the words stop nobody any more."""
    with _client(relay) as client:
        relay.stall_at(b"COMMIT")
        relay.flow()
        assert _ask(client, b"COMMIT") == b"COMMIT"


def test_clients_are_refused_and_cut_off(relay: Relay) -> None:
    """Whoever is there is hung up on, and whoever comes as well, until they are let in again."""
    with _client(relay) as client:
        assert _ask(client, b"one") == b"one"
        relay.refuse()
        relay.cut()
        assert client.recv(100) == b""
    with _client(relay) as client:
        assert client.recv(100) == b""
    relay.refuse(refusing=False)
    with _client(relay) as client:
        assert _ask(client, b"two") == b"two"


def test_orders_from_several_threads_are_each_answered(relay: Relay) -> None:
    """A fault that happens beside another gives its orders at the same time, and neither waits for ever."""
    ordering = [
        threading.Thread(target=lambda: [relay.answers for _ in range(300)], daemon=True) for _ in range(6)
    ]
    for thread in ordering:
        thread.start()
    for thread in ordering:
        thread.join(20)
    assert not any(thread.is_alive() for thread in ordering)
    assert relay.answers == 0
