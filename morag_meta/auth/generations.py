"""Keys that change while the service runs: of each purpose one makes, and one more may be accepted.

Pure. Where the generations of a secret come from is ``auth/secret.py``'s matter, and how one follows another
``server/rotation.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

Keys = Callable[[], tuple[bytes, ...]]
"""Gives the keys of one purpose that are in force now, that of the signing secret first."""


def keys_of(given: bytes | Keys) -> Keys:
    """Give keys in force for them, or for one key that never changes."""
    if isinstance(given, bytes):
        return lambda: (given,)
    return given


def found_by(places: Iterable[str], find: Callable[[str], T | None]) -> T | None:
    """Look at the places, each of which another generation names, until something is found at one.

    What is looked for may move from one to the other meanwhile, but once only: so the first is looked at
    again after the others.
    """
    several = tuple(places)
    for place in several if len(several) == 1 else (*several, several[0]):
        found = find(place)
        if found is not None:
            return found
    return None
