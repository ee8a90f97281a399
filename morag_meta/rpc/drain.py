"""The end of a server: calls in flight finish within a grace, and nobody who does not read prolongs it.

What streams are told at a drain stands in ``rpc/streams.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import grpc

PARTING_SECONDS: Final = 1.0
"""What the answers of calls that have ended get to reach their clients."""
_LOOK_SECONDS: Final = 0.05
_QUIET_SECONDS: Final = 0.05
# Less than the first pause of the service config that clients use: who is told calls again somewhere else.
_LONGEST_FAREWELL_SECONDS: Final = 0.15


async def farewell(arrived: Callable[[], int], longest: float) -> None:
    """Wait until no call has come for a moment, at most 0.15 s or ``longest`` seconds.

    ``arrived`` gives the number of calls that have come, which are told to go elsewhere meanwhile. What gRPC
    has taken and not handed to us when its server is stopped, it ends with CANCELLED and no word of why.
    """
    end = time.monotonic() + min(_LONGEST_FAREWELL_SECONDS, longest)
    seen = -1
    while seen != arrived() and time.monotonic() < end:
        seen = arrived()
        await asyncio.sleep(_QUIET_SECONDS)


async def drain(server: grpc.aio.Server, in_flight: Callable[[], int], grace: float) -> None:
    """Take no more calls and end the server, at the latest after ``grace`` seconds.

    ``in_flight`` gives the number of methods that are running. When none is, only what gRPC still tries
    to send keeps calls open, and a client that takes nothing would have it try for ever.
    """
    stopping = asyncio.create_task(server.stop(grace))
    quiet_since = time.monotonic()
    while not stopping.done() and time.monotonic() - quiet_since < PARTING_SECONDS:
        await asyncio.wait({stopping}, timeout=_LOOK_SECONDS)
        if in_flight():
            quiet_since = time.monotonic()
    if not stopping.done():
        await server.stop(None)
    await stopping
