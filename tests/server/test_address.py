"""Addresses: reading them, and having one alone."""

from __future__ import annotations

import socket

import pytest

from morag_meta.config.error import ConfigurationError
from morag_meta.server import address as module
from morag_meta.server.address import Address, AddressError, AddressLock
from tests.backends.daemon import free_port

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what an address may say


@pytest.mark.parametrize(
    ("text", "host", "port", "written"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051, "127.0.0.1:50051"),
        (" localhost:1 ", "localhost", 1, "localhost:1"),
        ("[::1]:0", "::1", 0, "[::1]:0"),
        ("*:50051", EVERYWHERE, 50051, f"{EVERYWHERE}:50051"),
        (f"{EVERYWHERE}:65535", EVERYWHERE, 65535, f"{EVERYWHERE}:65535"),
    ],
)
def test_address_is_read(text: str, host: str, port: int, written: str) -> None:
    """Host and port are found, and written as gRPC takes them."""
    address = Address.parse(text)
    assert (address.host, address.port, str(address)) == (host, port, written)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "50051",
        ":50051",
        "host",
        "host:",
        "host:x",
        "host:65536",
        "::1:50051",
        "unix:/x",
        "http://h:1",
        "h:1/x",
    ],
)
def test_what_is_no_address_is_told(text: str) -> None:
    """A bad address names the variable, the value and the form."""
    with pytest.raises(ConfigurationError) as caught:
        Address.parse(text)
    assert "MORAG_GRPC_ADDRESS" in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "127.0.0.1:50051" in str(caught.value)


@pytest.fixture(params=["abstract name", "lock file"])
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Address:
    """Give a free address, once with each way of locking."""
    monkeypatch.setattr(module, "_ABSTRACT_NAMES", request.param == "abstract name")
    return Address("127.0.0.1", free_port())


def test_lock_is_exclusive_until_released(address: Address) -> None:
    """A second lock on the address is refused, and had once the first one is given back."""
    with AddressLock(address):
        with pytest.raises(AddressError, match=f"{address} is in use by another morag-meta"):
            AddressLock(address).take()
        with AddressLock(Address("127.0.0.2", address.port)):
            pass
    with AddressLock(address):
        pass


def test_failed_lock_leaves_nothing_taken(address: Address) -> None:
    """When somebody else listens, the lock that failed is not kept."""
    with socket.create_server((address.host, address.port)), pytest.raises(AddressError):
        AddressLock(address).take()
    with AddressLock(address):
        pass


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", EVERYWHERE])
def test_any_other_listener_is_noticed(shared: bool, host: str) -> None:
    """Whoever listens there, willing to share the port or not, the address is in use, with a way out."""
    port = free_port()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        listener.bind((host, port))
        listener.listen()
        with pytest.raises(AddressError) as caught:
            AddressLock(Address("127.0.0.1", port)).take()
    assert str(caught.value).startswith(
        f"address 127.0.0.1:{port} is in use by another process; stop it, or choose"
    )
    assert "--address" in str(caught.value)


def test_connections_of_an_ended_server_do_not_hold_the_address() -> None:
    """A server that ended with open connections can be started anew at once."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    client = socket.create_connection(("127.0.0.1", port))
    accepted, _ = listener.accept()
    accepted.close()  # this side waits out the connection
    listener.close()
    client.close()
    with AddressLock(Address("127.0.0.1", port)):
        pass


@pytest.mark.parametrize(
    ("host", "cause"),
    [("192.0.2.1", "belongs to no network interface"), ("no-such-host.invalid", "the host has no address")],
)
def test_address_that_cannot_be_had_is_told(host: str, cause: str) -> None:
    """An address of another machine, and a name without one, are told as what they are."""
    with pytest.raises(AddressError, match=cause) as caught:
        AddressLock(Address(host, 50051)).take()
    assert "stop it" not in str(caught.value)


def test_port_zero_needs_no_lock() -> None:
    """Two services that let the system choose do not meet."""
    with AddressLock(Address("127.0.0.1", 0)), AddressLock(Address("127.0.0.1", 0)):
        pass


def test_reserved_port_is_shared_by_our_own_and_kept_from_others() -> None:
    """A reserved port takes listeners that share it, and nobody who does not."""
    lock = AddressLock(Address("127.0.0.1", 0))
    with lock:
        port = lock.reserve()
        assert port > 0
        with pytest.raises(AddressError):
            AddressLock(Address("127.0.0.1", port)).take()
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with AddressLock(Address("127.0.0.1", port)):
        pass
