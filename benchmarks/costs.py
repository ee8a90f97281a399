"""What GetDocument pays for knowing who asks, and for TLS: the real server beside one without either.

One server asks for a key, whose rate is limited, checks what it may, counts it and audits what it refuses;
its twin on the same database does nothing of that (``open.py``); a third is the first behind TLS.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import statistics
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.calls import GET, OURS, targets
from benchmarks.data import Filled
from benchmarks.load import Callers, Sample
from benchmarks.processes import served
from benchmarks.rounds import CALLERS, CONNECTIONS, Spread
from tests.certificates import Authority

_WARM_UP = 0.1
ASKED, OPEN, BY_TLS = "asked", "open to all", "asked, by TLS"
_STATES: Final = (ASKED, OPEN, BY_TLS)
_LIMITED: Final = {"MORAG_API_KEY_RATE": "100000", "MORAG_API_KEY_BURST": "1000000"}
"""A limit that is looked at and never reached."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What is added to a call, as a share of what it costs without: by processor time, and by rate."""

    asking_cpu: Spread
    asking_rate: Spread
    tls_cpu: Spread
    tls_rate: Spread
    cpu: dict[str, float]
    """The server's median processor seconds of a call."""


def compare(filled: Filled, *, rounds: int, seconds: float) -> Costs:
    """Get documents from the three servers in turns, in an order that is shuffled each round."""
    with contextlib.ExitStack() as stack:
        sides = {state: _Side(stack, filled, state) for state in _STATES}
        taken = [
            {state: sides[state].drive(seconds) for state in random.sample(_STATES, len(_STATES))}
            for _ in range(rounds + 1)
        ]
    counted = taken[1:]  # caches fill in the first round

    def added_cpu(state: str, to: str) -> Spread:
        pairs = [(each[state].cpu_per_call("server"), each[to].cpu_per_call("server")) for each in counted]
        return Spread.of([ours / theirs - 1 for ours, theirs in pairs])

    def added_time(state: str, to: str) -> Spread:
        return Spread.of([each[to].rate / each[state].rate - 1 for each in counted])

    return Costs(
        asking_cpu=added_cpu(ASKED, OPEN),
        asking_rate=added_time(ASKED, OPEN),
        tls_cpu=added_cpu(BY_TLS, ASKED),
        tls_rate=added_time(BY_TLS, ASKED),
        cpu={
            state: statistics.median(each[state].cpu_per_call("server") for each in counted)
            for state in _STATES
        },
    )


class _Side:
    """A server and its callers."""

    def __init__(self, stack: contextlib.ExitStack, filled: Filled, state: str) -> None:
        environment, context, root = dict(filled.environment) | _LIMITED, None, None
        if state == BY_TLS:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            authority = Authority("the benchmarks' authority")
            certificate, key = authority.issue("localhost").write(folder)
            environment |= {"MORAG_TLS_CERT_FILE": str(certificate), "MORAG_TLS_KEY_FILE": str(key)}
            root = authority.certificate
            context = ssl.create_default_context(cadata=root.decode())
            context.set_alpn_protocols(["h2"])
        flags = (f"--open={filled.owner_id}",) if state == OPEN else ()
        process = stack.enter_context(served(environment, more=flags))
        self._target = targets(filled, process.port, root)[GET, OURS]
        self._callers = Callers(process.port, CONNECTIONS, context)
        stack.callback(self._callers.close)
        self._groups = {"server": [process.pid]}

    def drive(self, seconds: float) -> Sample:
        """Call for so long, after a moment that is not counted."""
        self._callers.drive(self._target, callers=CALLERS, seconds=_WARM_UP)
        sample = self._callers.drive(self._target, callers=CALLERS, seconds=seconds, groups=self._groups)
        if sample.failures:
            raise RuntimeError(f"{sample.failures} calls failed")
        return sample
