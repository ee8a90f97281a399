"""The rule that turns good and bad probes into one steady answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from morag_meta.health.readiness import STEADY_SECONDS, Readiness


def test_nothing_is_ready_before_the_first_probe() -> None:
    """A process that has not asked yet does not claim to be ready."""
    assert not Readiness().ready


def test_first_good_probe_makes_ready() -> None:
    """At the start one good probe is enough."""
    readiness = Readiness()
    assert readiness.note(0.0, good=True)
    assert readiness.ready


def test_first_good_probe_makes_ready_after_bad_ones() -> None:
    """A database that comes late is used at once."""
    readiness = Readiness()
    assert not readiness.note(0.0, good=False)
    assert readiness.note(0.5, good=True)


def test_one_bad_probe_ends_readiness() -> None:
    """No second failure is waited for."""
    readiness = Readiness()
    readiness.note(0.0, good=True)
    assert readiness.note(1.0, good=False)
    assert not readiness.ready


def test_two_good_probes_bring_readiness_back_after_a_long_outage() -> None:
    """After an outage longer than the steady time the second good probe is enough."""
    readiness = Readiness()
    readiness.note(0.0, good=True)
    readiness.note(1.0, good=False)
    assert not readiness.note(20.0, good=True)
    assert readiness.note(20.5, good=True)


def test_a_bad_probe_between_two_good_ones_starts_the_count_anew() -> None:
    """The two good ones must follow each other."""
    readiness = Readiness()
    readiness.note(0.0, good=True)
    readiness.note(1.0, good=False)
    readiness.note(20.0, good=True)
    readiness.note(20.5, good=False)
    assert not readiness.note(21.0, good=True)
    assert readiness.note(21.5, good=True)


def test_a_short_outage_is_held_for_the_steady_time() -> None:
    """A database that comes back at once is not served from before the steady time is over."""
    readiness = Readiness()
    readiness.note(100.0, good=True)
    readiness.note(101.0, good=False)
    for tenth in range(1015, 1100):
        readiness.note(tenth / 10, good=True)
        assert not readiness.ready
    assert readiness.note(100.0 + STEADY_SECONDS, good=True)


@given(st.lists(st.tuples(st.floats(0.1, 6.0), st.booleans()), min_size=1, max_size=80))
def test_readiness_never_flaps(probes: list[tuple[float, bool]]) -> None:
    """Whatever the probes say, readiness is not given again within the steady time of its last proof."""
    readiness, now, proof = Readiness(), 0.0, None
    for pause, good in probes:
        now += pause
        was = readiness.ready
        changed = readiness.note(now, good=good)
        assert changed == (was != readiness.ready)
        assert readiness.ready <= good
        if readiness.ready:
            assert was or proof is None or now - proof >= STEADY_SECONDS
            proof = now
