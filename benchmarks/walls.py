"""What row security costs: the same calls on two databases of one PostgreSQL, with it and without.

Each method is called on one database and right after on the other, in an order that chance decides, and
their ratio is taken within the round.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import uuid
from dataclasses import dataclass
from typing import Final

from benchmarks.calls import GET, LIST, OURS, UPDATE, targets
from benchmarks.data import Filled
from benchmarks.load import Callers, Sample, Target
from benchmarks.processes import children, served
from benchmarks.rounds import CALLERS, CONNECTIONS, Spread
from benchmarks.wire import call_headers
from morag_meta.auth.authenticator import KEY_HEADER
from moragmeta.v1 import documents_pb2

CREATE: Final = "CreateDocument"
METHODS: Final = (GET, LIST, CREATE, UPDATE)
_WARM_UP: Final = 0.1


@dataclass(frozen=True, slots=True)
class Cost:
    """One method with row security, as ratios to the same without it within each round."""

    rate: Spread
    """Calls per second."""
    server_cpu: Spread
    """Processor time of the service for a call."""
    database_cpu: Spread
    """Processor time of PostgreSQL for a call."""


def compare(
    walled: Filled, open_: Filled, database_pid: int, *, rounds: int, seconds: float
) -> dict[str, Cost]:
    """Call each method in turns on the two databases."""
    taken: dict[str, list[tuple[Sample, Sample]]] = {method: [] for method in METHODS}
    with contextlib.ExitStack() as stack:
        sides = [_Side(stack, filled, database_pid) for filled in (walled, open_)]
        for _ in range(rounds + 1):
            for method in random.sample(METHODS, len(METHODS)):
                order = random.sample(sides, 2)
                samples = {id(side): side.drive(method, seconds) for side in order}
                taken[method].append((samples[id(sides[0])], samples[id(sides[1])]))
    return {method: _cost(pairs[1:]) for method, pairs in taken.items()}  # caches fill in the first round


def _cost(pairs: list[tuple[Sample, Sample]]) -> Cost:
    def cpu(group: str) -> Spread:
        return Spread.of([ours.cpu_per_call(group) / theirs.cpu_per_call(group) for ours, theirs in pairs])

    return Cost(
        Spread.of([ours.rate / theirs.rate for ours, theirs in pairs]), cpu("server"), cpu("database")
    )


class _Side:
    """A server of one of the databases, and its callers."""

    def __init__(self, stack: contextlib.ExitStack, filled: Filled, database_pid: int) -> None:
        process = stack.enter_context(served(filled.environment))
        every = targets(filled, process.port)
        self._targets = {method: every[method, OURS] for method in (GET, LIST, UPDATE)}
        self._targets[CREATE] = _creating(filled)
        self._callers = Callers(process.port, CONNECTIONS)
        stack.callback(self._callers.close)
        self._pid, self._database_pid = process.pid, database_pid

    def drive(self, method: str, seconds: float) -> Sample:
        """Call for so long, after a moment that is not counted."""
        target = self._targets[method]
        self._callers.drive(target, callers=CALLERS, seconds=_WARM_UP)
        groups = {"server": [self._pid], "database": children(self._database_pid)}
        sample = self._callers.drive(target, callers=CALLERS, seconds=seconds, groups=groups)
        if sample.failures:
            raise RuntimeError(f"{sample.failures} calls of {method} failed")
        return sample


def _creating(filled: Filled) -> Target:
    run, numbers = uuid.uuid4().hex, itertools.count(1)

    def message() -> bytes:
        document = documents_pb2.Document(name=f"{run}-{next(numbers)}.pdf", type="pdf", size_bytes=120_000)
        return documents_pb2.CreateDocumentRequest(document=document).SerializeToString()

    return Target(
        call_headers("/moragmeta.v1.DocumentService/CreateDocument", (KEY_HEADER, filled.key)), message
    )
