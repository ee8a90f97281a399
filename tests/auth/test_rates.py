"""How many calls are let through: buckets, and whose they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.principal import Principal, Rate, Role
from morag_meta.auth.rates import Buckets, Rates
from morag_meta.errors import Exhausted, Reason

_RATES = st.floats(0.001, 1000).map(lambda rate: round(rate, 3))


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _key(key_id: str, limit: Rate | None = None) -> Principal:
    return Principal("u", Role.USER, None, key_id, "", None, limit=limit)


@given(_RATES, st.integers(1, 20), st.lists(st.floats(0, 5), max_size=60))
def test_never_more_than_the_burst_and_what_came_since(rate: float, burst: int, pauses: list[float]) -> None:
    """Over any time no more goes through than the burst and the rate times that, and never less than due."""
    buckets, limit, now, taken = Buckets(), Rate(rate, burst), 50.0, 0
    for pause in pauses:
        now += pause
        left = buckets.left("a", limit, now)
        wait = buckets.take("a", limit, now)
        assert (wait == 0.0) == (left > 0)
        if wait == 0.0:
            taken += 1
            assert buckets.left("a", limit, now) in (left - 1, left)
        else:
            assert buckets.take("a", limit, now + wait * (1 - 1e-6) - 1e-6) > 0.0
    assert taken <= burst + rate * (now - 50.0) + 1e-6


def test_bucket_is_full_at_first_and_fills_again() -> None:
    """A burst goes through at once, the next call waits for one interval, and idling refills to the burst."""
    buckets, limit = Buckets(), Rate(2, 3)
    assert [buckets.take("a", limit, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("b", limit, 0.0) == 0.0
    assert buckets.take("a", limit, 0.5) == 0.0
    assert buckets.take("a", limit, 0.5) == pytest.approx(0.5)
    assert buckets.left("a", limit, 100.0) == 3
    assert [buckets.take("a", limit, 100.0) > 0 for _ in range(4)] == [False, False, False, True]


def test_callers_remembered_are_bounded() -> None:
    """Of very many callers the one that called longest ago is forgotten, and begins anew."""
    buckets, limit = Buckets(size=2), Rate(0.001, 1)
    for place in "abc":
        assert buckets.take(place, limit, 0.0) == 0.0
    assert buckets.take("c", limit, 0.0) > 0.0
    assert buckets.take("a", limit, 0.0) == 0.0


def test_key_has_its_own_limit_or_the_default() -> None:
    """A key's own limit goes before the default, without either there is none, and keys do not share one."""
    clock = _Clock()
    rates = Rates(of_keys=Rate(1, 2), clock=clock)
    for principal, calls in ((_key("plain"), 2), (_key("own", Rate(1, 5)), 5), (_key("other"), 2)):
        for left in range(calls, 0, -1):
            allowance = rates.allowance(principal)
            assert allowance is not None
            assert allowance.left == left
            rates.admit_key(principal)
        with pytest.raises(Exhausted) as caught:
            rates.admit_key(principal)
        assert caught.value.reason == Reason.RATE_LIMITED
        assert caught.value.retry_after == 1.0
    clock.now += 1
    rates.admit_key(_key("plain"))
    free = Rates.unlimited()
    assert free.allowance(_key("plain")) is None
    for _ in range(1000):
        free.admit_key(_key("plain"))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ipv4:192.0.2.1:5", "ipv4:192.0.2.1:6", True),
        ("ipv4:192.0.2.1:5", "ipv6:%5B::ffff:192.0.2.1%5D:6", True),
        ("ipv4:192.0.2.1:5", "ipv4:192.0.2.2:5", False),
        ("ipv6:%5B2001:db8::1%5D:5", "ipv6:%5B2001:db8::ffff:2%5D:5", True),
        ("ipv6:%5B2001:db8::1%5D:5", "ipv6:%5B2001:db8:0:1::1%5D:5", False),
        ("unix:", "unix:/run/x", True),
    ],
)
def test_address_is_that_of_the_peer(one: str, other: str, *, same: bool) -> None:
    """Whoever calls from one IPv4 address, or one IPv6 network of 64 bits, shares its limit."""
    rates = Rates(of_addresses=Rate(0.001, 1), clock=_Clock())
    rates.admit_address(one)
    if same:
        with pytest.raises(Exhausted):
            rates.admit_address(other)
    else:
        rates.admit_address(other)
