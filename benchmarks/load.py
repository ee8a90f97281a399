"""Closed-loop load: so many callers, each with one call under way, for so long.

It measures calls per second, latencies, and the processor time of processes. What is called is told by
``calls.py``, how bytes travel by ``wire.py``.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.processes import cpu_seconds, cpu_since
from benchmarks.wire import Connection, read_all

MakeMessage = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Target:
    """One method as it is called: its header block, and what makes the message of each call."""

    headers: bytes
    message: MakeMessage


@dataclass(slots=True)
class Sample:
    """What one stretch of load gave; times are seconds, ``cpu`` those of each group of processes."""

    seconds: float
    latencies: list[float]
    failures: int
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Calls per second."""
        return len(self.latencies) / self.seconds

    def cpu_per_call(self, group: str) -> float:
        """Processor seconds of a group for each call."""
        return self.cpu[group] / max(len(self.latencies), 1)


class Callers:
    """Callers on open connections to one port, kept from one stretch of load to the next."""

    def __init__(self, port: int, connections: int, tls: ssl.SSLContext | None = None) -> None:
        """Connect so often, by TLS if that is given; the callers of a stretch spread over the connections."""
        self._port = port
        self._tls = tls
        self._connections: list[Connection] = []
        self._answer = b""
        self._started: dict[tuple[int, int], float] = {}
        self._latencies: list[float] = []
        self._failures = 0
        self._stopped = False
        self._target: Target | None = None
        for _ in range(connections):
            self.connect()

    def __len__(self) -> int:
        """Count the connections."""
        return len(self._connections)

    def connect(self) -> None:
        """Make one more connection."""
        self._connections.append(Connection(self._port, self._receive, self._finisher(len(self)), self._tls))

    def disconnect(self) -> None:
        """Give up the connection made last."""
        self._connections.pop().close()

    def close(self) -> None:
        """Disconnect."""
        while self._connections:
            self.disconnect()

    def ask(self, target: Target) -> bytes:
        """Call once on the connection made last, and give the answer.

        Raises:
            RuntimeError: the call failed.
        """
        self._target, self._stopped, self._failures = target, True, 0
        self._call(len(self) - 1)
        read_all(self._connections, lambda: not self._started)
        if self._failures:
            raise RuntimeError("the call failed")
        return self._answer

    def drive(
        self,
        target: Target,
        *,
        callers: int,
        seconds: float,
        groups: dict[str, list[int]] | None = None,
        others: Sequence[Connection] = (),
    ) -> Sample:
        """Call for so long; ``groups`` names processes (by id) whose processor time is measured.

        ``others`` are connections that are read meanwhile, such as those of watchers.
        """
        self._target = target
        self._stopped = False
        self._latencies, self._failures = [], 0
        before = {name: cpu_seconds(pids) for name, pids in (groups or {}).items()}
        started = time.perf_counter()
        for caller in range(callers):
            self._call(caller % len(self))
        read = [*self._connections, *others]
        read_all(read, lambda: time.perf_counter() - started >= seconds)
        self._stopped = True
        read_all(read, lambda: not self._started)
        took = time.perf_counter() - started
        cpu = {name: cpu_since(looked) for name, looked in before.items()}
        return Sample(took, self._latencies, self._failures, cpu)

    def _call(self, index: int) -> None:
        target = self._target
        if target is not None:
            number = self._connections[index].call(target.headers, target.message())
            self._started[index, number] = time.perf_counter()

    def _receive(self, number: int, message: bytes) -> None:
        del number
        self._answer = message

    def _finisher(self, index: int) -> Callable[[int, bool], None]:
        def finish(number: int, ok: bool) -> None:  # noqa: FBT001 - the wire's own signature
            started = self._started.pop((index, number))
            if ok:
                self._latencies.append(time.perf_counter() - started)
            else:
                self._failures += 1
            if not self._stopped:
                self._call(index)

        return finish
