"""Who is at the other end of a connection: the address that gRPC names, as one address is written."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import unquote

_KINDS: Final = ("ipv4:", "ipv6:")
LONGEST_AGENT: Final = 256


def address_of(peer: str) -> str:
    """Give the address of a peer as gRPC names it (``ipv4:192.0.2.1:50000``); empty where it has none.

    An IPv4 address within IPv6 is given as IPv4, and a zone is left out: it is this machine's own word.
    """
    if not peer.startswith(_KINDS):
        return ""
    host = unquote(peer[len(_KINDS[0]) :]).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def agent_of(text: str) -> str:
    """Give a user agent as it may be kept and shown: at most 256 printable characters."""
    return "".join(filter(str.isprintable, text[:LONGEST_AGENT]))
