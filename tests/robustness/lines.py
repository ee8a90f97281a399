"""What each watcher saw from a beginning to an end, put together from its streams, and what it had to see."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.robustness.history import Connection, Event, Filter, Frame, History

# What of a filter can change in a job's life; the rest lets through all of a job's events, or none.
_CHANGING = ("states", "worker_ids")


@dataclass(slots=True)
class Line:
    """The frames of one watcher in the order of its reading, over its reconnections.

    Frames up to ``inherited`` belong to the session that the line branched off from.
    """

    watcher: str
    filter: Filter
    frames: list[Frame] = field(default_factory=list)
    conflate: bool = False
    from_start: bool = False
    complete: bool = False
    """Whether the watcher stayed to the end."""
    inherited: int = 0
    joints: list[int] = field(default_factory=list)
    """At which frames a new stream began."""

    @property
    def events(self) -> list[Frame]:
        """The frames with events."""
        return [frame for frame in self.frames if frame.event is not None]

    @property
    def fixed(self) -> bool:
        """Whether the filter passes all events of a job, or none."""
        return not any(getattr(self.filter, name) for name in _CHANGING)

    def snapshot(self) -> dict[str, Frame]:
        """The snapshot's frame of each job; one that was broken off was sent again, and no longer counts."""
        held = [frame for frame in self.frames if frame.job is not None]
        whole = [frame for frame in held if frame.connection == held[-1].connection]
        return {frame.job.id: frame for frame in whole if frame.job is not None}


def lines(history: History) -> list[Line]:
    """Put together the lines of all watchers."""
    frames: dict[tuple[str, int], list[Frame]] = defaultdict(list)
    for frame in history.frames:
        frames[frame.watcher, frame.connection].append(frame)
    sessions: dict[tuple[str, int], list[Connection]] = defaultdict(list)
    for connection in history.connections:
        sessions[connection.watcher, connection.session].append(connection)
    last: dict[str, int] = {}
    for watcher, session in sessions:
        last[watcher] = max(session, last.get(watcher, session))
    found = []
    for (watcher, session), connections in sessions.items():
        complete = history.drained and session == last[watcher]
        found += _of_session(sorted(connections, key=lambda c: c.number), frames, complete=complete)
    return found


def _of_session(
    connections: list[Connection], frames: dict[tuple[str, int], list[Frame]], *, complete: bool
) -> list[Line]:
    first = connections[0]
    main = Line(first.watcher, first.filter, conflate=first.conflate, from_start=first.from_start)
    own = [connection for connection in connections if not connection.aside]
    # Who was told that what follows is gone did not see it.
    main.complete = complete and bool(own) and own[-1].code != "OUT_OF_RANGE"
    for connection in connections:
        if not connection.aside:
            main.joints.append(len(main.frames))
            main.frames += frames[connection.watcher, connection.number]
    found = [main]
    for connection in connections:
        if connection.aside:
            before = main.frames[: connection.after]
            aside = Line(first.watcher, first.filter, [*before], first.conflate, first.from_start)
            aside.inherited = len(before)
            aside.joints.append(len(before))
            aside.frames += frames[connection.watcher, connection.number]
            found.append(aside)
    return found


def matches(wanted: Filter, event: Event) -> tuple[bool, bool]:
    """Say whether the job matched before the event, and after it."""
    fixed = (
        wanted.owner_id in ("-", event.owner_id)
        and wanted.job_id in ("", event.job_id)
        and wanted.document_id in ("", event.document_id)
        and (not wanted.kinds or event.kind in wanted.kinds)
        and (not wanted.document_types or event.document_type in wanted.document_types)
    )
    before = (
        event.number > 1
        and (not wanted.states or event.previous_state in wanted.states)
        and (not wanted.worker_ids or event.previous_worker_id in wanted.worker_ids)
    )
    after = (not wanted.states or event.state in wanted.states) and (
        not wanted.worker_ids or event.worker_id in wanted.worker_ids
    )
    return fixed and before, fixed and after


class Log:
    """The events of a run in the order of the log, found by what they are and whose."""

    def __init__(self, history: History) -> None:
        """Put them in order."""
        self.events = sorted(history.events, key=lambda event: event.position)
        self.positions = {(event.job_id, event.number): event.position for event in self.events}
        self._of_job: dict[str, list[Event]] = defaultdict(list)
        for event in self.events:
            self._of_job[event.job_id].append(event)

    def due(self, line: Line) -> list[Event]:
        """Give the events that the line had to bring, in the order of the log: those between its two ends.

        A line that did not see the start begins with its first event, for want of knowledge; one that was
        broken off ends with its last. What a snapshot held is not due again.
        """
        of_job = line.filter.job_id
        seen = [self.positions.get((f.event.job_id, f.event.number), 0) for f in line.frames if f.event]
        held = {id: frame.job.last_sequence for id, frame in line.snapshot().items() if frame.job}
        low = 0 if line.from_start else min(seen, default=None)
        high = None if line.complete else max(seen, default=0)
        found = []
        for event in self._of_job[of_job] if of_job else self.events:
            known = event.job_id in held and event.number <= held[event.job_id]
            late = event.job_id in held or (low is not None and event.position >= low)
            in_time = high is None or event.position <= high
            if not known and late and in_time and any(matches(line.filter, event)):
                found.append(event)
        return found
