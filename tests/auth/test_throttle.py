"""The bounds of tries by themselves: how many pass, when the next one does, and where a try counts."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.throttle import Limit, Limits, Throttle

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def _let_through(limit: Limit, gaps: list[float]) -> list[dt.datetime]:
    """Try after each pause (seconds), and give the times of the tries that are let through."""
    now, clear_time, passed = START, None, []
    for gap in gaps:
        now += dt.timedelta(seconds=gap)
        if limit.wait(clear_time, now) == 0:
            clear_time = limit.after_try(clear_time, now)
            passed.append(now)
    return passed


def test_so_many_pass_and_then_one_in_each_part() -> None:
    """Ten pass at once, the eleventh waits six minutes, and so does each one after it."""
    limit = Limit(10, HOUR)
    clear_time = None
    for _ in range(10):
        assert limit.wait(clear_time, START) == 0
        clear_time = limit.after_try(clear_time, START)
    assert limit.wait(clear_time, START) == 360
    later = START + dt.timedelta(minutes=6)
    assert limit.wait(clear_time, later) == 0
    assert limit.wait(limit.after_try(clear_time, later), later) == 360
    assert limit.wait(clear_time, START + HOUR) == 0


@given(
    most=st.integers(1, 20),
    seconds=st.integers(1, 10_000),
    gaps=st.lists(st.floats(0, 2000, allow_nan=False), max_size=200),
)
def test_no_period_holds_more_than_twice_the_bound(most: int, seconds: int, gaps: list[float]) -> None:
    """However tries are timed, a period sees at most the full bucket and what drains from it meanwhile."""
    period = dt.timedelta(seconds=seconds)
    passed = _let_through(Limit(most, period), gaps)
    for start in passed:
        assert sum(start <= time < start + period for time in passed) <= 2 * most


@given(most=st.integers(1, 1000), seconds=st.floats(1, 1e6), tries=st.integers(0, 2000))
def test_whoever_waits_as_told_is_let_through(most: int, seconds: float, tries: int) -> None:
    """The delay that is told is enough, to a microsecond."""
    limit = Limit(most, dt.timedelta(seconds=seconds))
    clear_time = None
    for _ in range(tries):
        if limit.wait(clear_time, START) == 0:
            clear_time = limit.after_try(clear_time, START)
    waited = START + dt.timedelta(seconds=limit.wait(clear_time, START), microseconds=1)
    assert limit.wait(clear_time, waited) == 0


def _throttle(*most: int) -> Throttle:
    return Throttle(bytes(32), Limits(*(Limit(number, HOUR) for number in most)))


def test_a_login_counts_thrice_and_shows_no_email() -> None:
    """A log-in counts for its address, its account, and both; the account stands as a keyed hash."""
    counts = _throttle(10, 100, 300).login("jo@example.org", "192.0.2.1")
    assert [(bool(c.key.account), c.key.address, c.limit.most) for c in counts] == [
        (False, "192.0.2.1", 300),
        (True, "", 100),
        (True, "192.0.2.1", 10),
    ]
    assert [c.key for c in counts] == sorted(c.key for c in counts)
    assert "jo" not in str(counts)
    other_key = Throttle(bytes(range(32)), Limits(*[Limit(1, HOUR)] * 3))
    assert other_key.login("jo@example.org", "192.0.2.1")[1].key != counts[1].key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "", True),
        ("", "192.0.2.1", False),
    ],
)
def test_addresses_of_one_ipv6_network_count_as_one(one: str, other: str, same: bool) -> None:
    """Of IPv6 a network of 64 bits is one place, of IPv4 an address; no address is a place of its own."""
    throttle = _throttle(10, 100, 300)
    places = [throttle.login("jo@example.org", address)[2].key.address for address in (one, other)]
    assert (places[0] == places[1]) == same
    assert all(places)


def test_a_bound_of_zero_does_not_hold() -> None:
    """What is set to 0 is not counted at all."""
    (count,) = _throttle(10, 0, 0).login("jo@example.org", "192.0.2.1")
    assert count.is_of_both
    assert _throttle(0, 0, 0).login("jo@example.org", "") == []
    assert _throttle(0, 1, 1).password("user") == []
