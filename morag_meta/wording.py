"""How numbers of things are written in messages to people."""

from __future__ import annotations


def number_of(count: int, thing: str) -> str:
    """Write how many there are of a thing whose plural ends in ``s``: ``1 session``, ``2 sessions``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
