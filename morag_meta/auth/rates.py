"""How many calls somebody may make: each key by its limit, each address by that of the public methods.

API keys that do not exist count for their address as public calls do, each that the database was asked for.

The counters live in the process and are written nowhere: what is let through is exact within a process, and
over several processes of one service each lets through as much, so that a caller whom they all serve gets at
most so many times the limit. A restart fills every bucket.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from morag_meta.auth.addresses import UNIX, address_of
from morag_meta.auth.principal import Principal, Rate
from morag_meta.errors import Exhausted, Reason

MOST_PLACES: Final = 100_000
"""The most callers remembered; one who is forgotten, because so many others came since, begins anew."""

_SAME_NETWORK_BITS: Final = 64  # of an IPv6 address: what one subscriber chooses freely comes behind them
_TOLERANCE: Final = 1e-9


class Buckets:
    """Token buckets by name: each holds ``burst`` tokens at first, and gains ``per_second`` up to that.

    Of each only the time is kept at which it will be full again (the generic cell rate algorithm of ATM).
    """

    def __init__(self, size: int = MOST_PLACES) -> None:
        """Remember at most ``size`` buckets."""
        self._size = size
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, place: str, limit: Rate, now: float) -> float:
        """Take a token at ``now`` (monotonic seconds); give 0.0, or the seconds until there is one."""
        wait = self.wait(place, limit, now)
        if wait:
            return wait
        self._full_at[place] = max(self._full_at.get(place, now), now) + 1 / limit.per_second
        self._full_at.move_to_end(place)
        if len(self._full_at) > self._size:
            self._full_at.popitem(last=False)
        return 0.0

    def wait(self, place: str, limit: Rate, now: float) -> float:
        """Give 0.0 where there is a token at ``now``, or the seconds until there is one; take none."""
        step = 1 / limit.per_second
        wait = max(self._full_at.get(place, now), now) + step - now - limit.burst * step
        return wait if wait > _TOLERANCE else 0.0

    def left(self, place: str, limit: Rate, now: float) -> int:
        """Count the tokens that are there."""
        missing = max(self._full_at.get(place, now) - now, 0.0) * limit.per_second
        return max(0, math.floor(limit.burst - missing + _TOLERANCE))


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key may still do: its limit, and how many calls are left of it in this process now."""

    limit: Rate
    left: int


class Rates:
    """The limits of one process; for the event loop's thread."""

    def __init__(
        self,
        of_keys: Rate | None = None,
        of_addresses: Rate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Rate keys without a limit of their own, and addresses without a known credential; None is not."""
        self._of_keys = of_keys
        self._of_addresses = of_addresses
        self._clock = clock
        self._keys = Buckets()
        self._addresses = Buckets()
        self._strangers = Buckets()  # apart from public calls, so that made-up keys keep nobody from Login

    @classmethod
    def unlimited(cls) -> Self:
        """Rate only keys that have a limit of their own."""
        return cls()

    def admit_key(self, principal: Principal) -> None:
        """Let one more call of a key through.

        Raises:
            Exhausted: RATE_LIMITED, with the seconds until the next one.
        """
        limit = principal.limit or self._of_keys
        if limit is not None:
            wait = self._keys.take(principal.key_id, limit, self._clock())
            if wait:
                raise _limited("the API key", limit, wait)

    def admit_address(self, peer: str) -> None:
        """Let one more public call from the address of gRPC's ``peer`` through.

        Raises:
            Exhausted: as ``admit_key``.
        """
        limit = self._of_addresses
        if limit is not None:
            wait = self._addresses.take(_place_of(address_of(peer)), limit, self._clock())
            if wait:
                raise _limited("the address", limit, wait)

    def check_stranger(self, peer: str) -> None:
        """Refuse an API key that nothing is known of yet, where its address has shown too many made-up ones.

        Raises:
            Exhausted: as ``admit_key``.
        """
        limit = self._of_addresses
        if limit is not None:
            wait = self._strangers.wait(_place_of(address_of(peer)), limit, self._clock())
            if wait:
                raise _limited("the address, with API keys that do not exist,", limit, wait)

    def note_stranger(self, peer: str) -> None:
        """Count an API key that was looked for and does not exist; those looked for at once all count."""
        limit = self._of_addresses
        if limit is not None:
            self._strangers.take(_place_of(address_of(peer)), limit, self._clock())

    def allowance(self, principal: Principal) -> Allowance | None:
        """Say what a key may still do, and take nothing of it; None where it has no limit."""
        limit = principal.limit or self._of_keys
        if limit is None:
            return None
        return Allowance(limit, self._keys.left(principal.key_id, limit, self._clock()))


def _place_of(address: str) -> str:
    """Name the bucket of an address: IPv6 by its network, within which one caller has any number of them."""
    if not address or address == UNIX or ":" not in address:
        return address
    return str(ipaddress.ip_network((address, _SAME_NETWORK_BITS), strict=False))


def _limited(who: str, limit: Rate, wait: float) -> Exhausted:
    rate = f"{limit.per_second:g}"
    return Exhausted(
        f"{who} may make {rate} calls per second, {limit.burst} at once; wait",
        reason=Reason.RATE_LIMITED,
        metadata={"per_second": rate, "burst": str(limit.burst)},
        retry_after=wait,
    )
