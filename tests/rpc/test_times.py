"""Times between rows and messages."""

from __future__ import annotations

import datetime as dt

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.errors import Invalid
from morag_meta.rpc.times import from_duration, from_timestamp, to_timestamp
from moragmeta.v1.workers_pb2 import LeaseJobsRequest

_UTC_TIMES = st.datetimes(timezones=st.just(dt.UTC))
_ZONED = st.tuples(_UTC_TIMES, st.integers(-1439, 1439)).map(
    lambda drawn: drawn[0].replace(tzinfo=dt.timezone(dt.timedelta(minutes=drawn[1])))
)


@given(_UTC_TIMES)
def test_a_time_comes_back_to_the_microsecond(time: dt.datetime) -> None:
    """Any time of the calendar survives the way to a message and back, before 1970 as after."""
    sent = to_timestamp(time)
    assert sent is not None
    assert 0 <= sent.nanos < 1_000_000_000
    back = from_timestamp(sent)
    assert (back, back.tzinfo) == (time, dt.UTC)


@given(_UTC_TIMES)
def test_a_time_is_what_protobuf_makes_of_it(time: dt.datetime) -> None:
    """The message is the one that protobuf's own conversion gives."""
    expected = Timestamp()
    expected.FromDatetime(time)
    assert to_timestamp(time) == expected


@given(_ZONED)
def test_any_time_zone_means_the_same_moment(time: dt.datetime) -> None:
    """A time of another zone becomes the same moment in UTC."""
    if not 2 <= time.year <= 9998:
        return  # in UTC it might be beyond the calendar
    sent = to_timestamp(time)
    assert sent is not None
    assert from_timestamp(sent) == time.astimezone(dt.UTC)


@given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999))
def test_nanoseconds_are_cut_and_never_rounded_up(seconds: int, nanos: int) -> None:
    """A message of a valid time becomes the microsecond that it lies in."""
    time = from_timestamp(Timestamp(seconds=seconds, nanos=nanos))
    assert to_timestamp(time) == Timestamp(seconds=seconds, nanos=nanos // 1000 * 1000)


@pytest.mark.parametrize("nanos", [-1, 1_000_000_000, -(2**31), 2**31 - 1])
def test_a_span_whose_parts_do_not_belong_together_is_refused(nanos: int) -> None:
    """A second's worth of nanoseconds and more, or fewer than none, are no part of a Duration."""
    request = LeaseJobsRequest(lease_duration=Duration(seconds=20, nanos=nanos))
    with pytest.raises(Invalid) as caught:
        from_duration(request, "lease_duration", path="", least=1, most=3600)
    assert [each.field for each in caught.value.violations] == ["lease_duration"]


def test_no_time_is_no_field() -> None:
    """None stays None, so that an absent time is an absent field."""
    assert to_timestamp(None) is None
