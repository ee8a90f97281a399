"""From where somebody calls: the peer's own address, and the ranges to which a key is bound. Pure.

Only what the service sees of the connection counts: no header names another address here.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = "unix"
"""The address of every peer on a Unix domain socket, and the range of all of them."""

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_MAPPED_BITS: Final = 96


def address_of(peer: str) -> str:
    """Give the address in gRPC's name of a peer, as ``ipv4:192.0.2.1:50051``; empty where there is none.

    An IPv4-mapped IPv6 address is its IPv4 address, and a zone (``%eth0``) is left out.
    """
    kind, _, rest = peer.partition(":")
    if kind == UNIX:
        return UNIX
    host = urllib.parse.unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    return canonical_address(host) if kind in ("ipv4", "ipv6") else ""


def canonical_address(text: str) -> str:
    """Give an address, or ``unix``, in its one spelling; empty if it is none."""
    if text == UNIX:
        return UNIX
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def canonical_range(text: str) -> str:
    """Give a range in its one spelling: CIDR, an address as the range of one, or ``unix``.

    Raises:
        ValueError: it is none of these, has bits beyond its prefix, or a zone.
    """
    return text if text == UNIX else str(_network(text))


def contains(outer: Iterable[str], inner: str) -> bool:
    """Say whether a canonical range lies within one of others."""
    if inner == UNIX:
        return UNIX in outer
    network = _network(inner)
    return any(_is_within(network, _network(each)) for each in outer if each != UNIX)


@lru_cache(maxsize=16_384)
def is_allowed(ranges: tuple[str, ...], address: str) -> bool:
    """Say whether canonical ranges, of which none are everything, let in a canonical address."""
    if not ranges:
        return True
    return bool(address) and contains(ranges, address)


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    if "%" in text:
        raise ValueError("a range has no zone")
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network((int(mapped or 0), network.prefixlen - _MAPPED_BITS))
    return network


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)
