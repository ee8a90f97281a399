"""Times between rows and messages: aware UTC datetimes and Timestamp, milliseconds and Duration."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.errors import invalid

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def to_timestamp(time: dt.datetime | None) -> Timestamp | None:
    """Give a time as a message; None stays None, so that an absent time is an absent field."""
    if time is None:
        return None
    passed = time - _EPOCH
    return Timestamp(seconds=passed.days * 86_400 + passed.seconds, nanos=passed.microseconds * 1000)


def write_time(target: Timestamp, time: dt.datetime) -> None:
    """Write a time into a field of a message: half the cost of a message of its own, for hot paths."""
    passed = time - _EPOCH
    target.seconds = passed.days * 86_400 + passed.seconds
    target.nanos = passed.microseconds * 1000


def from_timestamp(timestamp: Timestamp) -> dt.datetime:
    """Give a message as an aware UTC time, cut to microseconds.

    The validation has refused what a datetime cannot hold (years before 1 and after 9999).
    """
    return _EPOCH + dt.timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)


def to_duration(milliseconds: float | None) -> Duration | None:
    """Give the message of a span of time, or None."""
    if milliseconds is None:
        return None
    seconds, rest = divmod(round(milliseconds * 1000), 1_000_000)
    return Duration(seconds=seconds, nanos=rest * 1000)


def from_duration(message: Any, field: str, *, path: str, least: float, most: float) -> int | None:
    """Give the whole milliseconds of a field of a message, or None where it is absent.

    ``path`` is what a client calls the message ("job."), ``least`` and ``most`` are seconds.

    Raises:
        Invalid: it is shorter or longer, or its parts are not those of one span (their signs, or a second's
            worth of nanoseconds).
    """
    if not message.HasField(field):
        return None
    duration: Duration = getattr(message, field)
    if not 0 <= duration.nanos < 1_000_000_000:
        raise invalid(path + field, "must have from 0 to 999,999,999 nanos")
    seconds = duration.seconds + duration.nanos / 1e9
    if not least <= seconds <= most:
        raise invalid(path + field, f"must be from {least:g} s to {most:g} s")
    return duration.seconds * 1000 + duration.nanos // 1_000_000
