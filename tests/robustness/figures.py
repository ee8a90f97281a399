"""What a run measured: rates and times, from its history."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.robustness.history import History
from tests.robustness.workers import LEASE


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in seconds; a pair is the median and the 99th percentile, (0, 0) where nothing was measured."""

    events: int
    rate: float
    """Events per second while there was traffic."""
    delivery: tuple[float, float]
    """From a change to its frame, to watchers that read at once and stay; faults included."""
    takeover: tuple[float, float]
    """From the last sign of a worker that was lost to the next lease of its job; a lease is 1 s."""
    drain: float
    """From the last write to the end of the last job."""
    faults: Counter[str]
    frames: int

    def __str__(self) -> str:
        """Show them on a few lines."""
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"events {self.events} ({self.rate:.0f}/s), frames {self.frames}, "
            f"delivery p50 {self.delivery[0] * 1000:.0f} ms p99 {self.delivery[1] * 1000:.0f} ms, "
            f"from a worker's death to the next lease p50 {self.takeover[0]:.2f} s "
            f"p99 {self.takeover[1]:.2f} s, "
            f"drain {self.drain:.1f} s\nfaults {sum(self.faults.values())}: {faults or 'none'}"
        )


def measure(history: History, seconds: float, drain: float, steady: set[str]) -> Figures:
    """Measure a run whose traffic took so many seconds; ``steady`` watchers count for delivery."""
    delays = [
        frame.time - frame.event.create_time
        for frame in history.frames
        if frame.event is not None and frame.watcher in steady
    ]
    return Figures(
        events=len(history.events),
        rate=len(history.events) / max(seconds, 0.001),
        delivery=_percentiles(delays),
        takeover=_percentiles(_takeovers(history)),
        drain=drain,
        faults=Counter(fault.name for fault in history.faults),
        frames=len(history.frames),
    )


def _takeovers(history: History) -> list[float]:
    told: dict[tuple[str, int], float] = {}
    for operation in history.operations:
        for lease in operation.answer.get("leases", []):
            told[lease["job_id"], lease["attempt"]] = lease["expire_time"]
        if operation.method == "HeartbeatJob" and operation.answer.get("verdict") == "GO_ON":
            told[operation.request["job_id"], operation.request["attempt"]] = operation.answer["expire_time"]
    lost = {
        (event.job_id, event.attempt): event
        for event in history.events
        if event.previous_state == "PROCESSING" and event.state == "PENDING"
    }
    return [
        event.create_time - (told[key] - LEASE)
        for event in history.events
        if event.state == "PROCESSING" and event.previous_state != "PROCESSING"
        for key in [(event.job_id, event.attempt - 1)]
        if key in told and key in lost and lost[key].create_time >= told[key]
    ]


def _percentiles(values: list[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 0.0
    ranked = sorted(values)
    return ranked[len(ranked) // 2], ranked[min(len(ranked) * 99 // 100, len(ranked) - 1)]
