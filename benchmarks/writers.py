"""What it costs those who write that their changes are numbered, and that somebody watches them.

One server numbers what it is told, as the service does; beside it, on a database of its own, one is called
that leaves all events without a position.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from dataclasses import dataclass
from typing import Final

from benchmarks.calls import OURS, UPDATE, targets
from benchmarks.crowd import Crowd, watch_all
from benchmarks.data import Filled
from benchmarks.load import Callers
from benchmarks.processes import served
from benchmarks.rounds import CALLERS, CONNECTIONS, Spread

_WARM_UP = 0.1
WATCHED, ALONE, UNNUMBERED = "one watcher", "no watcher", "no watcher, sequencer idle"
_STATES: Final = (WATCHED, ALONE, UNNUMBERED)


@dataclass(frozen=True, slots=True)
class Writers:
    """Reports of progress per second, as ratios within each round, and their median for each state."""

    watched: Spread
    """With a watcher of every change, to without."""
    numbered: Spread
    """With the sequencer at work, to with an idle one; nobody watches."""
    both: Spread
    """With a watcher and the sequencer at work, to with neither."""
    rates: dict[str, float]


def compare(numbered: Filled, unnumbered: Filled, *, rounds: int, seconds: float) -> Writers:
    """Report progress in turns on the two databases, both of the same kind."""
    with contextlib.ExitStack() as stack:
        sides = [
            _Side(stack, filled, asleep=asleep) for filled, asleep in ((numbered, False), (unnumbered, True))
        ]
        taken = [_round(sides, seconds) for _ in range(rounds + 1)]
    counted = taken[1:]  # caches fill in the first round

    def ratio(state: str, to: str) -> Spread:
        return Spread.of([rates[state] / rates[to] for rates in counted])

    return Writers(
        watched=ratio(WATCHED, ALONE),
        numbered=ratio(ALONE, UNNUMBERED),
        both=ratio(WATCHED, UNNUMBERED),
        rates={state: statistics.median(rates[state] for rates in counted) for state in _STATES},
    )


def _round(sides: list[_Side], seconds: float) -> dict[str, float]:
    return {
        state: sides[state == UNNUMBERED].drive(seconds, watched=state == WATCHED)
        for state in random.sample(_STATES, len(_STATES))
    }


class _Side:
    """A server, the callers who report to it, and a watcher of it who comes and goes."""

    def __init__(self, stack: contextlib.ExitStack, filled: Filled, *, asleep: bool) -> None:
        process = stack.enter_context(served(filled.environment, asleep=asleep))
        self._target = targets(filled, process.port)[UPDATE, OURS]
        self._callers = Callers(process.port, CONNECTIONS)
        stack.callback(self._callers.close)
        self._crowd = Crowd(process.port, filled.key)
        stack.callback(self._crowd.close)
        self._watch = watch_all(filled.key)

    def drive(self, seconds: float, *, watched: bool) -> float:
        """Report for so long, after a moment that is not counted; give the rate of what was answered."""
        if watched:
            self._crowd.open([self._watch])
        others = self._crowd.connections
        self._callers.drive(self._target, callers=CALLERS, seconds=_WARM_UP, others=others)
        sample = self._callers.drive(self._target, callers=CALLERS, seconds=seconds, others=others)
        if watched:
            self._crowd.end_all()
        return sample.rate
