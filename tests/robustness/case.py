"""A history laid out for judgment: what validators share is put in order once, and in linear time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cached_property

from tests.robustness.history import Event, Frame, History
from tests.robustness.lines import Line, lines, matches


class Case:
    """What is judged; the history must not change any more."""

    def __init__(self, history: History) -> None:
        """Take a history."""
        self.history = history
        self._due: dict[int, list[Event]] = {}

    @cached_property
    def lines(self) -> list[Line]:
        """The lines of all watchers."""
        return lines(self.history)

    @cached_property
    def chains(self) -> dict[str, list[Event]]:
        """The events of each job that has any, in the order of their numbers."""
        chains: dict[str, list[Event]] = defaultdict(list)
        for event in sorted(self.history.events, key=lambda event: event.number):
            chains[event.job_id].append(event)
        return dict(chains)

    def due(self, line: Line) -> list[Event]:
        """Give the events that a line had to bring, in the order of the log: those between its two ends.

        A line that did not see the start begins with its first event, for want of knowledge; one that was
        broken off ends with its last. What a snapshot held is not due again, and of a branch only what
        follows the branching, as the rest is due of its trunk.
        """
        if id(line) not in self._due:
            self._due[id(line)] = self._find_due(line)
        return self._due[id(line)]

    @cached_property
    def _log(self) -> list[Event]:
        return sorted(self.history.events, key=lambda event: event.position)

    @cached_property
    def _positions(self) -> dict[tuple[str, int], int]:
        return {(event.job_id, event.number): event.position for event in self._log}

    def _position(self, frame: Frame) -> int:
        event = frame.event
        return 0 if event is None else self._positions.get((event.job_id, event.number), 0)

    def _find_due(self, line: Line) -> list[Event]:
        seen = [self._position(frame) for frame in line.events]
        held = {id: frame.job.last_sequence for id, frame in line.snapshot.items() if frame.job}
        high = None if line.complete else max(seen, default=0)
        last = None if any(frame.job for frame in line.frames) else line.last()
        if last is not None:
            low: int | None = self._position(last) + 1
            candidates = self._between(line, low, high)
        else:
            low = 0 if line.from_start else min(seen, default=None)
            candidates = self._held_on(held, low, high) + self._between(line, low, high)
        return [
            event
            for event in candidates
            if not (event.job_id in held and event.number <= held[event.job_id])
            and any(matches(line.filter, event))
        ]

    def _between(self, line: Line, low: int | None, high: int | None) -> list[Event]:
        """Give the events of the log from a position, or none at all, to another one, or to the end."""
        if low is None:
            return []
        of_job = line.filter.job_id
        if of_job:
            chain = sorted(self.chains.get(of_job, []), key=lambda event: event.position)
            return [e for e in chain if e.position >= low and (high is None or e.position <= high)]
        begin = bisect_left(self._log, low, key=lambda event: event.position)
        end = len(self._log) if high is None else bisect_right(self._log, high, key=lambda e: e.position)
        return self._log[begin:end]

    def _held_on(self, held: dict[str, int], low: int | None, high: int | None) -> list[Event]:
        """Give the events before ``low`` of the jobs that a snapshot held: they are due as well."""
        limit = low if low is not None else float("inf")
        if not limit:
            return []
        found = [event for job_id in held for event in self.chains.get(job_id, []) if event.position < limit]
        found = [event for event in found if high is None or event.position <= high]
        return sorted(found, key=lambda event: event.position)
