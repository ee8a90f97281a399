"""What runs measured: rates and times, from their histories."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.robustness.history import Fault, History
from tests.robustness.workers import LEASE

_AFTERMATH = 2.0
"""Seconds after a fault that are not quiet yet."""


@dataclass(slots=True)
class Figures:
    """Times in seconds, one for each thing that was measured; figures of several runs can be added up."""

    events: int = 0
    frames: int = 0
    seconds: float = 0.0
    """How long there was traffic."""
    quiet_events: int = 0
    quiet_seconds: float = 0.0
    """How long there was traffic and no fault, nor had been for 2 s."""
    delivered: list[float] = field(default_factory=list)
    """From each change to its frame, to watchers that read at once and stay."""
    quiet_delivered: list[float] = field(default_factory=list)
    """The same of changes in quiet times."""
    freed: list[float] = field(default_factory=list)
    """From the last sign of a worker that was lost until its job waits again; a lease is 1 s."""
    taken_over: list[float] = field(default_factory=list)
    """From the same sign to the job's next lease: jobs that are more urgent come before it."""
    drained: list[float] = field(default_factory=list)
    """From the last write to the end of the last job."""
    ended: list[float] = field(default_factory=list)
    """From SIGTERM to the end of a server that has watchers and calls."""
    judged: list[float] = field(default_factory=list)
    """How long it took to judge each history."""
    faults: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Figures) -> Figures:
        """Give the figures of both."""
        return Figures(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def __str__(self) -> str:
        """Show them on a few lines."""
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        lines = {
            "events": f"{self.events}, {_rate(self.events, self.seconds)}; frames {self.frames}",
            "events without faults": _rate(self.quiet_events, self.quiet_seconds),
            "delivery": _milliseconds(self.delivered),
            "delivery without faults": _milliseconds(self.quiet_delivered),
            "from a worker's death until its job waits again": _seconds(self.freed),
            "from a worker's death to the next lease": _seconds(self.taken_over),
            "from SIGTERM to the end of a server": _seconds(self.ended),
            "from the last write to the last job's end": _seconds(self.drained),
            "judged in": _seconds(self.judged),
            f"faults {sum(self.faults.values())}": faults or "none",
        }
        return "\n  ".join(f"{name}: {line}" for name, line in lines.items())


def _rate(events: int, seconds: float) -> str:
    return f"{events / seconds:.0f}/s" if seconds else "-"


def _milliseconds(values: Sequence[float]) -> str:
    half, most, _ = _ranks(values)
    return f"p50 {half * 1000:.0f} ms p99 {most * 1000:.0f} ms ({len(values)})" if values else "-"


def _seconds(values: Sequence[float]) -> str:
    half, most, last = _ranks(values)
    return f"p50 {half:.2f} s p99 {most:.2f} s max {last:.2f} s ({len(values)})" if values else "-"


def _ranks(values: Sequence[float]) -> tuple[float, float, float]:
    ranked = sorted(values) or [0.0]
    return ranked[len(ranked) // 2], ranked[min(len(ranked) * 99 // 100, len(ranked) - 1)], ranked[-1]


def measure(history: History, times: tuple[float, float], steady: set[str]) -> Figures:
    """Measure a run whose traffic went on between two times; ``steady`` watchers count for delivery."""
    quiet = _Quiet(times, history.faults)
    freed, taken_over = _takeovers(history)
    delays = [
        (frame.event.create_time, frame.time - frame.event.create_time)
        for frame in history.frames
        if frame.event is not None and frame.watcher in steady
    ]
    return Figures(
        events=len(history.events),
        frames=len(history.frames),
        seconds=times[1] - times[0],
        quiet_events=sum(quiet.holds(event.create_time) for event in history.events),
        quiet_seconds=quiet.seconds,
        delivered=[delay for _, delay in delays],
        quiet_delivered=[delay for begin, delay in delays if quiet.holds(begin)],
        freed=freed,
        taken_over=taken_over,
        faults=Counter(fault.name for fault in history.faults),
    )


class _Quiet:
    """The times between faults."""

    def __init__(self, times: tuple[float, float], faults: Sequence[Fault]) -> None:
        begin, end = times
        self._spans: list[tuple[float, float]] = []
        for fault in sorted(faults, key=lambda fault: fault.begin):
            if fault.begin > begin:
                self._spans.append((begin, fault.begin))
            begin = max(begin, fault.end + _AFTERMATH)
        if end > begin:
            self._spans.append((begin, end))
        self.seconds = sum(end - begin for begin, end in self._spans)

    def holds(self, time: float) -> bool:
        """Say whether there was no fault at a time."""
        place = bisect_right(self._spans, (time, float("inf")))
        return place > 0 and time < self._spans[place - 1][1]


def _takeovers(history: History) -> tuple[list[float], list[float]]:
    """Give the times until lost workers' jobs waited again, and until they were leased again."""
    told: dict[tuple[str, int], float] = {}
    for operation in history.operations:
        for lease in operation.answer.get("leases", []):
            told[lease["job_id"], lease["attempt"]] = lease["expire_time"]
        if operation.method == "HeartbeatJob" and operation.answer.get("verdict") == "GO_ON":
            told[operation.request["job_id"], operation.request["attempt"]] = operation.answer["expire_time"]
    lost = {
        (event.job_id, event.attempt): event.create_time
        for event in history.events
        if event.previous_state == "PROCESSING" and event.state == "PENDING"
    }
    lost = {key: time for key, time in lost.items() if key in told and time >= told[key]}
    leased = [
        event.create_time - (told[key] - LEASE)
        for event in history.events
        if event.state == "PROCESSING" and event.previous_state != "PROCESSING"
        for key in [(event.job_id, event.attempt - 1)]
        if key in lost
    ]
    return [time - (told[key] - LEASE) for key, time in lost.items()], leased
