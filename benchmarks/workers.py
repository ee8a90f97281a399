"""Two processes on one port against one: the scaling that ``--workers`` gives on this machine.

Both kinds of set-up hold the benchmarks' own servers, which listen with SO_REUSEPORT as workers do.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter

from benchmarks.calls import GET, OURS, targets
from benchmarks.contract import BARE
from benchmarks.data import Filled
from benchmarks.load import Callers, Target
from benchmarks.processes import served
from benchmarks.rounds import Spread
from benchmarks.wire import call_headers
from morag_meta.server.address import Address, AddressLock

_CALLERS = 16
_CONNECTIONS = 8
_WARM_UP = 0.1


def compare(filled: Filled, *, rounds: int, seconds: float) -> Spread:
    """Give how many times the calls of GetDocument that one process answers two do."""
    ratios = []
    with contextlib.ExitStack() as stack:
        alone, pair = _start(stack, filled, 1), _start(stack, filled, 2)
        target = targets(filled, alone)[GET, OURS]
        one, two = _connect(stack, alone, 1), _connect(stack, pair, 2)
        for number in range(rounds + 1):
            rates = {}
            for callers in random.sample((one, two), 2):
                callers.drive(target, callers=_CALLERS, seconds=_WARM_UP)
                rates[callers] = callers.drive(target, callers=_CALLERS, seconds=seconds).rate
            if number:
                ratios.append(rates[two] / rates[one])
    return Spread.of(ratios)


def _start(stack: contextlib.ExitStack, filled: Filled, processes: int) -> int:
    """Start so many processes on one port, and give the port."""
    lock = stack.enter_context(AddressLock(Address("127.0.0.1", 0)))
    port = lock.reserve()
    for _ in range(processes):
        stack.enter_context(served(filled.environment, f"127.0.0.1:{port}", shared=True))
    return port


def _connect(stack: contextlib.ExitStack, port: int, processes: int) -> Callers:
    """Connect equally often to each process.

    The kernel deals connections out by a hash, and with few of them one process may get most, which would
    measure the hash. Many clients even that out.
    """
    hello = Target(call_headers(f"/{BARE}/Pid"), lambda: b"")
    callers = Callers(port, 0)
    stack.callback(callers.close)
    counts: Counter[bytes] = Counter()
    while len(callers) < _CONNECTIONS:
        callers.connect()
        pid = callers.ask(hello)
        counts[pid] += 1
        if counts[pid] > _CONNECTIONS // processes:
            callers.disconnect()
    return callers
