"""Identifiers: UUIDv7 as RFC 9562 has it, and never going back, whatever the clock does."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta import ids
from morag_meta.ids import new_id

NOON = 1_772_366_400_000  # milliseconds


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Begin as a process does that made no id yet; afterwards everything is as it was."""
    monkeypatch.setattr(ids, "_last_millisecond", 0)
    monkeypatch.setattr(ids, "_counter", 0)
    return monkeypatch


def _set_clock(fresh: pytest.MonkeyPatch, milliseconds: int) -> None:
    clock = SimpleNamespace(time_ns=lambda: milliseconds * 1_000_000)
    fresh.setattr("morag_meta.ids.time", clock)


def _milliseconds(id: str) -> int:
    return uuid.UUID(id).int >> 80


def test_an_id_has_the_bits_that_the_rfc_asks_for() -> None:
    """Version 7, variant 10, the Unix time in milliseconds first, in 36 canonical characters."""
    for _ in range(1000):
        before = time.time_ns() // 1_000_000
        id = new_id()
        after = time.time_ns() // 1_000_000
        parsed = uuid.UUID(id)
        assert str(parsed) == id
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert before <= _milliseconds(id) <= after + 1  # a full counter borrows from the next millisecond


def test_ids_differ_in_what_cannot_be_guessed() -> None:
    """The last 62 bits are random: among many ids no two agree in them."""
    tails = {uuid.UUID(new_id()).int & ((1 << 62) - 1) for _ in range(20_000)}
    assert len(tails) == 20_000


def test_ids_ascend_as_text_and_are_unique_across_threads() -> None:
    """Each thread sees its ids ascend in plain text order, and no two threads are given the same."""

    def make(_: int) -> list[str]:
        return [new_id() for _ in range(5000)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    for one in made:
        assert one == sorted(one)
    assert len({id for one in made for id in one}) == 40_000


@settings(suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.sampled_from([0, 0, 0, 1, 2, 1000, -1, -1000, -86_400_000]), min_size=1, max_size=50)
)
def test_ids_ascend_however_the_clock_steps(fresh: pytest.MonkeyPatch, steps: list[int]) -> None:
    """A clock that stands still or steps back makes no id that is less than one before it."""
    now, made = NOON, []
    for step in steps:
        now += step
        _set_clock(fresh, now)
        made += [new_id(), new_id()]
    assert made == sorted(set(made))


def test_more_ids_than_a_millisecond_counts_borrow_from_the_next(fresh: pytest.MonkeyPatch) -> None:
    """Ten thousand ids at one moment ascend, and run ahead of the clock by milliseconds only."""
    _set_clock(fresh, NOON)
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert _milliseconds(made[0]) == NOON
    assert _milliseconds(made[-1]) <= NOON + 3


def test_the_clock_counts_again_once_it_has_caught_up(fresh: pytest.MonkeyPatch) -> None:
    """After the clock has passed the last id's time, ids bear the clock's time again."""
    _set_clock(fresh, NOON)
    new_id()
    _set_clock(fresh, NOON - 5000)
    assert _milliseconds(new_id()) == NOON
    _set_clock(fresh, NOON + 5000)
    assert _milliseconds(new_id()) == NOON + 5000
