"""Calling again until the service answers: how long to wait, and when not to go on.

What does not live here: the quick retries within one call, which gRPC makes by service_config.json.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc

from morag_client.refusals import refusal_of

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_FIRST, _LONGEST = 0.2, 5.0


def pauses() -> Iterator[float]:
    """Give the seconds to wait before each next try: longer and longer up to 5, never in step."""
    # Clients that were cut off together would otherwise come back together.
    chance = random.SystemRandom()
    longest = _FIRST
    while True:
        yield chance.uniform(longest / 2, longest)
        longest = min(longest * 2, _LONGEST)


def answered(
    method: Callable[[_Request], _Response], request: _Request, rest: Callable[[float], object]
) -> _Response:
    """Call until there is an answer, with the very same request each time.

    Only for calls that may be repeated: reads, reports, and writes with a ``request_id``. ``rest`` waits
    for some seconds, and raises in order to give up.

    Raises:
        grpc.RpcError: the service refused, and would again.
    """
    waits = pauses()
    while True:
        try:
            return method(request)
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            if not refusal.may_repeat:
                raise
            rest(max(next(waits), refusal.retry_after))
