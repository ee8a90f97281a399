"""The addresses of peers, as gRPC names them, and user agents, as clients do."""

from __future__ import annotations

import pytest

from morag_meta.rpc.peers import address_of, agent_of


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:50000", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:50000", "2001:db8::1"),
        ("ipv6:[2001:DB8:0:0::1]:50000", "2001:db8::1"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:50000", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::1"),
        ("unix:/run/morag.sock", ""),
        ("unix:", ""),
        ("peer", ""),
        ("ipv4:nowhere:1", ""),
        ("", ""),
    ],
)
def test_an_address_is_written_in_one_way(peer: str, address: str) -> None:
    """Port, brackets, escapes, zone and the IPv6 form of IPv4 fall away; what has no address gives none."""
    assert address_of(peer) == address


def test_a_user_agent_is_bounded_and_printable() -> None:
    """At most 256 characters are kept, and none that a terminal or a database would stumble over."""
    assert agent_of("grpc-python/1.85 (linux)") == "grpc-python/1.85 (linux)"
    assert agent_of("a\x00b\x1b[31m\n") == "ab[31m"
    assert agent_of("x" * 300) == "x" * 256
