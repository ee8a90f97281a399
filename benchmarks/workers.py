"""Two processes on one port against one: the scaling that ``--workers`` gives on this machine.

Both kinds of set-up hold the benchmarks' own servers, which listen with SO_REUSEPORT as workers do.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from collections import Counter
from dataclasses import dataclass

from benchmarks.calls import GET, OURS, targets
from benchmarks.contract import BARE
from benchmarks.data import Filled
from benchmarks.load import Callers, Sample, Target
from benchmarks.processes import served
from benchmarks.rounds import Spread
from benchmarks.wire import call_headers
from morag_meta.server.address import Address, AddressLock

_CALLERS = 16
_CONNECTIONS = 8
_WARM_UP = 0.1


@dataclass(frozen=True, slots=True)
class Scaling:
    """What two processes did beside one."""

    ratio: Spread
    """Calls of GetDocument per second, two processes to one."""
    cores: tuple[float, float]
    """How many cores the one process had, and the two: without a second core to have, nothing scales."""


def compare(filled: Filled, *, rounds: int, seconds: float) -> Scaling:
    """Call one process and two in turns."""
    with contextlib.ExitStack() as stack:
        sides = [_Side(stack, filled, count) for count in (1, 2)]
        target = targets(filled, sides[0].port)[GET, OURS]
        samples: list[tuple[Sample, Sample]] = []
        for _ in range(rounds + 1):
            taken = {side: side.drive(target, seconds) for side in random.sample(sides, 2)}
            samples.append((taken[sides[0]], taken[sides[1]]))
    counted = samples[1:]  # caches fill in the first round
    cores = [statistics.median(pair[i].cpu["server"] / pair[i].seconds for pair in counted) for i in (0, 1)]
    return Scaling(Spread.of([two.rate / one.rate for one, two in counted]), (cores[0], cores[1]))


class _Side:
    """So many processes on one port, and callers who are connected equally often to each of them.

    The kernel deals connections out by a hash, and with few of them one process may get most, which would
    measure the hash. Many clients even that out.
    """

    def __init__(self, stack: contextlib.ExitStack, filled: Filled, count: int) -> None:
        lock = stack.enter_context(AddressLock(Address("127.0.0.1", 0)))
        self.port = lock.reserve()
        address = f"127.0.0.1:{self.port}"
        started = [
            stack.enter_context(served(filled.environment, address, shared=True)) for _ in range(count)
        ]
        self._pids = [process.pid for process in started]
        self._callers = Callers(self.port, 0)
        stack.callback(self._callers.close)
        self._connect(_CONNECTIONS // count)

    def _connect(self, each: int) -> None:
        hello = Target(call_headers(f"/{BARE}/Pid"), lambda: b"")
        counts: Counter[bytes] = Counter()
        while len(self._callers) < each * len(self._pids):
            self._callers.connect()
            pid = self._callers.ask(hello)
            counts[pid] += 1
            if counts[pid] > each:
                self._callers.disconnect()

    def drive(self, target: Target, seconds: float) -> Sample:
        """Call for so long, after a moment of it that is not counted."""
        self._callers.drive(target, callers=_CALLERS, seconds=_WARM_UP)
        groups = {"server": self._pids}
        return self._callers.drive(target, callers=_CALLERS, seconds=seconds, groups=groups)
