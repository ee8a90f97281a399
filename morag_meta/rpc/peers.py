"""Who is at the other end of a connection: the address that gRPC names, as a session keeps it."""

from __future__ import annotations

from typing import Final

from morag_meta.auth import addresses

LONGEST_AGENT: Final = 256


def address_of(peer: str) -> str:
    """Give the address of a peer as gRPC names it (``ipv4:192.0.2.1:50000``); empty where it has none.

    That is so on a Unix socket too, which for keys is a place of its own (``auth/addresses.py``).
    """
    address = addresses.address_of(peer)
    return "" if address == addresses.UNIX else address


def agent_of(text: str) -> str:
    """Give a user agent as it may be kept and shown: at most 256 printable characters."""
    return "".join(filter(str.isprintable, text[:LONGEST_AGENT]))
