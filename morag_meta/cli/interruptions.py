"""Which failures of a call pass by themselves, and for how long to wait before it is made again.

What does not live here: what is shown meanwhile (``watch.py``), and how a command ends (``failures.py``).
"""

from __future__ import annotations

import random
from typing import Any, Final

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from morag_meta.errors import Reason

_FIRST_PAUSE: Final = 0.2  # seconds
_LONGEST_PAUSE: Final = 5.0
# What a new try may mend; a stream ends so at drain, at its maximum age and when the server is gone.
_TRY_AGAIN: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "CANCELLED", "UNKNOWN"})


def is_interruption(error: Any) -> bool:
    """Whether a stream that ended with this error is to be opened again."""
    return error.code().name in _TRY_AGAIN or _reason(error) in (Reason.RATE_LIMITED, Reason.CONFLICT)


def is_rate_limit(error: Any) -> bool:
    """Whether the key called too fast; its other limits do not pass by waiting."""
    return _reason(error) == Reason.RATE_LIMITED


def told_delay(error: Any) -> float:
    """Give for how many seconds the service asks to be left alone; 0 where it does not say."""
    found = RetryInfo()
    return found.retry_delay.ToTimedelta().total_seconds() if _unpack(error, found) else 0.0


class Pauses:
    """The seconds to wait before each next try: longer and longer, never in step with others."""

    def __init__(self) -> None:
        """Begin with the shortest."""
        self._pause = _FIRST_PAUSE

    def reset(self) -> None:
        """Begin anew, after a sign of life."""
        self._pause = _FIRST_PAUSE

    def next(self, least: float = 0.0) -> float:
        """Give the next one, of ``least`` seconds at least."""
        pause = self._pause * random.SystemRandom().uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return max(pause, least)


def _reason(error: Any) -> str:
    found = ErrorInfo()
    _unpack(error, found)
    return found.reason


def _unpack(error: Any, wanted: ErrorInfo | RetryInfo) -> bool:
    status = rpc_status.from_call(error)
    return status is not None and any(detail.Unpack(wanted) for detail in status.details)
