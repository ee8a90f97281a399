"""Shifts the clock of the Python process that finds this in its path, by CLOCK_OFFSET seconds."""

from __future__ import annotations

import datetime as dt
import os
import time
from typing import Any

_OFFSET = float(os.environ.get("CLOCK_OFFSET", "0"))
_REAL = dt.datetime
_time, _time_ns = time.time, time.time_ns


class _Kind(type):
    """Takes every datetime for one of the shifted kind, as nothing but the clock differs."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _REAL)


class _Shifted(_REAL, metaclass=_Kind):
    """A datetime whose present is another."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        """Give the shifted time."""
        return _REAL.now(tz) + dt.timedelta(seconds=_OFFSET)

    @classmethod
    def utcnow(cls) -> Any:
        """Give the shifted time without a zone."""
        return cls.now(dt.UTC).replace(tzinfo=None)


time.time = lambda: _time() + _OFFSET
time.time_ns = lambda: _time_ns() + int(_OFFSET * 1e9)
dt.datetime = _Shifted  # type: ignore[misc]
