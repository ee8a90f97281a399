"""What each watcher saw from a beginning to an end, put together from its streams."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from tests.robustness.history import Connection, Event, Filter, Frame, History

# What of a filter can change in a job's life; the rest lets through all of a job's events, or none.
_CHANGING = ("states", "worker_ids")


@dataclass
class Line:
    """The frames of one watcher in the order of its reading, over its reconnections.

    A look aside is a line that branches off another, its ``trunk``, behind the first ``inherited`` frames of
    it. These are not copied, and only looked up: so a long line may have thousands of branches.
    """

    watcher: str
    filter: Filter
    frames: list[Frame] = field(default_factory=list)
    conflate: bool = False
    from_start: bool = False
    complete: bool = False
    """Whether the watcher stayed to the end."""
    joints: list[int] = field(default_factory=list)
    """At which frames a new stream began."""
    trunk: Line | None = None
    inherited: int = 0

    @cached_property
    def events(self) -> list[Frame]:
        """The frames with events."""
        return [frame for frame in self.frames if frame.event is not None]

    @property
    def fixed(self) -> bool:
        """Whether the filter passes all events of a job, or none."""
        return not any(getattr(self.filter, name) for name in _CHANGING)

    @cached_property
    def snapshot(self) -> dict[str, Frame]:
        """The snapshot's frame of each job; one that was broken off was sent again, and no longer counts."""
        own = [frame for frame in self.frames if frame.job is not None]
        if own or self.trunk is None:
            return _last_whole(own)
        if self.inherited >= self.trunk.snapshot_end:
            return self.trunk.snapshot
        return _last_whole([frame for frame in self.trunk.frames[: self.inherited] if frame.job is not None])

    def last(self, job_id: str = "") -> Frame | None:
        """Give the last inherited frame with an event, of a job if one is named; a trunk inherits nothing."""
        if self.trunk is None:
            return None
        places = self.trunk.places_of.get(job_id, []) if job_id else self.trunk.places
        found = bisect_left(places, self.inherited)
        return self.trunk.frames[places[found - 1]] if found else None

    def inherits(self, job_id: str, number: int) -> Frame | None:
        """Give the inherited frame of an event, if there is one."""
        place = None if self.trunk is None else self.trunk.place_of.get((job_id, number))
        if self.trunk is None or place is None or place >= self.inherited:
            return None
        return self.trunk.frames[place]

    def event_before(self, joint: int) -> Frame | None:
        """Give the last frame with an event before a place, inherited ones included."""
        found = bisect_left(self.places, joint)
        return self.frames[self.places[found - 1]] if found else self.last()

    def event_from(self, joint: int) -> Frame | None:
        """Give the first frame with an event from a place on."""
        found = bisect_left(self.places, joint)
        return self.frames[self.places[found]] if found < len(self.places) else None

    def before(self, joint: int) -> Frame | None:
        """Give the frame before the one at a place."""
        if joint:
            return self.frames[joint - 1]
        return self.trunk.frames[self.inherited - 1] if self.trunk and self.inherited else None

    @cached_property
    def snapshot_end(self) -> int:
        """How many frames there are up to the last one of a snapshot."""
        return max((n for n, frame in enumerate(self.frames, 1) if frame.job is not None), default=0)

    @cached_property
    def places(self) -> list[int]:
        """Where the frames with events are."""
        return [place for place, frame in enumerate(self.frames) if frame.event is not None]

    @cached_property
    def places_of(self) -> dict[str, list[int]]:
        """Where the frames with events of each job are."""
        found: dict[str, list[int]] = defaultdict(list)
        for place in self.places:
            event = self.frames[place].event
            if event is not None:
                found[event.job_id].append(place)
        return found

    @cached_property
    def place_of(self) -> dict[tuple[str, int], int]:
        """Where the first frame of each event is."""
        found: dict[tuple[str, int], int] = {}
        for place in self.places:
            event = self.frames[place].event
            if event is not None:
                found.setdefault((event.job_id, event.number), place)
        return found


def _last_whole(held: list[Frame]) -> dict[str, Frame]:
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
            aside = Line(first.watcher, first.filter, conflate=first.conflate, from_start=first.from_start)
            aside.trunk, aside.inherited = main, min(connection.after, len(main.frames))
            aside.joints.append(0)
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
