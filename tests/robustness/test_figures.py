"""Figures are of what was measured, and quiet times are those without a fault."""

from __future__ import annotations

import pytest

from tests.robustness.figures import Figures, measure
from tests.robustness.history import Event, Fault, Frame, History


def _event(number: int, time: float) -> Event:
    return Event("job", number, "ann", "", "PENDING", 0, 0, 0, "X", "", "", "", "", "", time)


def _history() -> History:
    """A change in each second from 0 to 19, told 0.1 s later, and 1 s later amidst a fault from 5 to 8."""
    history = History()
    history.faults = [Fault("late", 6, 8), Fault("cut", 5, 5)]
    history.events = [_event(second, second) for second in range(20)]
    history.frames = [
        Frame("steady", 0, 0, e.create_time + (1 if 5 <= e.create_time < 8 else 0.1), "event", event=e)
        for e in history.events
    ]
    return history


def test_delays_and_rates_are_told_apart_from_those_without_faults() -> None:
    """A second counts as quiet unless a fault goes on in it, or ended less than two seconds before."""
    figures = measure(_history(), (0, 20), {"steady"})
    assert (figures.events, figures.seconds) == (20, 20)
    assert figures.quiet_seconds == pytest.approx(15)
    assert figures.quiet_events == 15
    assert max(figures.delivered) == pytest.approx(1)
    assert max(figures.quiet_delivered) == pytest.approx(0.1)
    assert dict(figures.faults) == {"late": 1, "cut": 1}


def test_only_steady_watchers_count() -> None:
    """Who breaks off, or reads slowly, says nothing of how long the service takes."""
    assert measure(_history(), (0, 20), set()).delivered == []


def test_figures_of_runs_are_added_up() -> None:
    """Two runs have the events, times and faults of both, and one line says them."""
    one = measure(_history(), (0, 20), {"steady"})
    both = Figures() + one + one
    assert (both.events, both.seconds, len(both.delivered)) == (40, 40, 40)
    assert "40, 1/s" in str(both)
    assert "p50 100 ms p99 1000 ms (40)" in str(both)
    assert "faults 4: cut 2, late 2" in str(both)
