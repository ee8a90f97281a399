"""Addresses of peers, and the ranges to which a key is bound."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.addresses import address_of, canonical_address, canonical_range, contains, is_allowed

_V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
_V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:50051", "192.0.2.7"),
        ("ipv6:%5B::1%5D:50051", "::1"),
        ("ipv6:[2001:db8::A]:1", "2001:db8::a"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:1", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::1"),
        ("unix:/run/morag.sock", "unix"),
        ("unix:", "unix"),
        ("vsock:3:50051", ""),
        ("ipv4:", ""),
        ("", ""),
    ],
)
def test_peer_is_read_as_grpc_names_it(peer: str, address: str) -> None:
    """Of a peer's name its address is taken: mapped ones as IPv4, without zone and port; others have none."""
    assert address_of(peer) == address


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::/0", "::/0"),
        ("unix", "unix"),
    ],
)
def test_range_has_one_spelling(text: str, canonical: str) -> None:
    """However a range is written, it is kept in one form, and that form is kept as it is."""
    assert canonical_range(text) == canonical
    assert canonical_range(canonical) == canonical


@pytest.mark.parametrize(
    "text", ["", "x", "192.0.2.1/24", "192.0.2.0/33", "2001:db8::1/32", "fe80::1%eth0", "1.2.3", "*", "10/8"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    """Bits beyond the prefix, zones and anything else that may be a mistake are refused."""
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind
        canonical_range(text)


@given(_V4, st.integers(0, 32), _V4)
def test_range_of_v4_lets_in_what_is_in_it(base: ipaddress.IPv4Address, bits: int, peer: object) -> None:
    """An address is let in exactly when its first bits are the range's, also when it comes mapped."""
    network = ipaddress.ip_network((int(base), bits), strict=False)
    expected = peer in network
    ranges = (canonical_range(str(network)),)
    assert is_allowed(ranges, canonical_address(str(peer))) is expected
    assert is_allowed(ranges, address_of(f"ipv6:%5B::ffff:{peer}%5D:1")) is expected
    assert not is_allowed(ranges, "2001:db8::1")


@given(_V6.filter(lambda address: address.ipv4_mapped is None), st.integers(0, 128), _V6)
def test_range_of_v6_lets_in_what_is_in_it(
    base: ipaddress.IPv6Address, bits: int, peer: ipaddress.IPv6Address
) -> None:
    """The same for IPv6; a range of it says nothing of IPv4, however wide it is."""
    network = ipaddress.ip_network((int(base), bits), strict=False)
    ranges = (canonical_range(str(network)),)
    expected = peer in network and peer.ipv4_mapped is None
    assert is_allowed(ranges, canonical_address(str(peer))) is expected
    assert not is_allowed(("::/0",), "192.0.2.1")


def test_no_range_lets_in_everybody_and_no_address_nobody() -> None:
    """A key without ranges is bound to nothing; a bound one is closed to whoever has no known address."""
    for address in ("192.0.2.1", "::1", "unix", ""):
        assert is_allowed((), address)
    for ranges in (("0.0.0.0/0", "::/0"), ("unix",)):
        assert not is_allowed(ranges, "")
    assert is_allowed(("unix",), "unix")
    assert not is_allowed(("0.0.0.0/0", "::/0"), "unix")
    assert not contains(("unix",), "192.0.2.1/32")
