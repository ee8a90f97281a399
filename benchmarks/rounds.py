"""The interleaved run: every method and its rivals on every database in each round, in shuffled order.

A method and its rivals are called within a second or two of each other, and their ratio is taken within
the round: on a machine with other work to do, only neighbors can be compared.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.calls import ECHO, GET, LIST, OURS, RIVALS, Name, targets
from benchmarks.data import Filled
from benchmarks.load import Callers, Sample, Target
from benchmarks.processes import Served, children
from moragmeta.v1 import documents_pb2

CALLERS = 16
CONNECTIONS = 4
_WARM_UP = 0.05
_FEWEST_ROUNDS = 3
_READ: Mapping[str, Callable[[bytes], Any]] = {
    GET: documents_pb2.Document.FromString,
    LIST: lambda data: documents_pb2.ListDocumentsResponse.FromString(data).documents[:],
}

Cell = tuple[str, Name]
"""A kind of database, and a call."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up one value of each round."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(slots=True)
class Measured:
    """The samples of all rounds: under load, and with one caller at a time."""

    loaded: dict[Cell, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    alone: dict[Cell, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: int = 0
    rounds: int = 0

    def ratio(self, kind: str, method: str, rival: str) -> Spread:
        """Give how many times the calls per second of a rival a method had."""
        return Spread.of([ours.rate / theirs.rate for ours, theirs in self._pairs(kind, method, rival)])

    def cpu_ratio(self, kind: str, method: str, rival: str) -> Spread:
        """Give how many times the server's processor time of a method a rival took for a call."""
        pairs = self._pairs(kind, method, rival)
        return Spread.of([b.cpu_per_call("server") / a.cpu_per_call("server") for a, b in pairs])

    def cpu(self, kind: str, method: str, rival: str, group: str) -> float:
        """Give the median processor time of a group of processes for a call, in seconds."""
        return statistics.median(sample.cpu_per_call(group) for sample in self.loaded[kind, (method, rival)])

    def rate(self, kind: str, method: str, rival: str) -> float:
        """Give the median of calls per second."""
        return statistics.median(sample.rate for sample in self.loaded[kind, (method, rival)])

    def latency(self, kind: str, method: str, percentile: int) -> float:
        """Give a percentile of the latency, in seconds, with one caller at a time."""
        return percentile_of(self.alone[kind, (method, OURS)], percentile)

    def _pairs(self, kind: str, method: str, rival: str) -> list[tuple[Sample, Sample]]:
        ours, theirs = self.loaded[kind, (method, OURS)], self.loaded[kind, (method, rival)]
        return list(zip(ours, theirs, strict=True))


def percentile_of(values: Sequence[float], percentile: int) -> float:
    """Give the value that so many in a hundred do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percentile - 1]


@dataclass(slots=True)
class _Side:
    """A server under measurement."""

    filled: Filled
    callers: Callers
    alone: Callers
    targets: dict[Name, Target]
    groups: Callable[[], dict[str, list[int]]]


def run(
    servers: Sequence[tuple[Filled, Served]], database_pid: int, *, budget: float, stretch: float
) -> Measured:
    """Measure for about ``budget`` seconds, in stretches of load of ``stretch`` seconds."""
    measured = Measured()
    end = time.monotonic() + budget
    with contextlib.ExitStack() as stack:
        sides = [_side(filled, served, database_pid, stack) for filled, served in servers]
        groups = [(side, method) for side in sides for method in RIVALS]
        for side in sides:
            _check_alike(side)
        _round(Measured(), groups, stretch)  # statements compile and caches fill
        while measured.rounds < _FEWEST_ROUNDS or time.monotonic() < end:
            _round(measured, groups, stretch)
    return measured


def _check_alike(side: _Side) -> None:
    """See that the rivals give what the service gives: one that does less is no rival.

    Raises:
        RuntimeError: one does not.
    """
    for method, read in _READ.items():
        message = side.targets[method, OURS].message()
        given = []
        for rival in (OURS, *RIVALS[method]):
            if rival != ECHO:
                headers = side.targets[method, rival].headers
                given.append(read(side.alone.ask(Target(headers, itertools.repeat(message).__next__))))
        if any(answer != given[0] for answer in given):
            raise RuntimeError(f"{side.filled.kind}: the answers to {method} differ")


def _round(measured: Measured, groups: list[tuple[_Side, str]], stretch: float) -> None:
    random.shuffle(groups)
    for side, method in groups:
        _compare(measured, side, method, stretch)
    measured.rounds += 1


def _compare(measured: Measured, side: _Side, method: str, stretch: float) -> None:
    """Call a method and its rivals one right after the other, so that they meet the same machine."""
    for rival in random.sample((OURS, *RIVALS[method]), len(RIVALS[method]) + 1):
        target, cell = side.targets[method, rival], (side.filled.kind, (method, rival))
        side.callers.drive(target, callers=CALLERS, seconds=_WARM_UP)
        sample = side.callers.drive(target, callers=CALLERS, seconds=stretch, groups=side.groups())
        measured.failures += sample.failures
        measured.loaded[cell].append(sample)
    alone = side.alone.drive(side.targets[method, OURS], callers=1, seconds=stretch)
    measured.alone[side.filled.kind, (method, OURS)] += alone.latencies


def _side(filled: Filled, served: Served, database_pid: int, stack: contextlib.ExitStack) -> _Side:
    callers = Callers(served.port, CONNECTIONS)
    stack.callback(callers.close)
    alone = Callers(served.port, 1)
    stack.callback(alone.close)

    def groups() -> dict[str, list[int]]:
        return {"server": [served.pid], "database": children(database_pid)}

    return _Side(filled, callers, alone, targets(filled, served.port), groups)
