"""What a process remembers of the log for its watchers: the newest events, by job and by filter.

Plain data that the feed fills and watchers read, all on the event loop; nothing here asks the database.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

from morag_meta.jobs.convert import event_to_proto
from morag_meta.jobs.listing import Filter
from morag_meta.jobs.resume import Seal
from morag_meta.jobs.rules import FINAL_STATES
from morag_meta.rpc.stream import Stream
from moragmeta.v1 import jobs_pb2 as pb

PAGE: Final = 200
"""The most events that one read gives to one watcher, and that a topic or channel remembers."""
_NUMBER: Final = attrgetter("number")
_POSITION: Final = attrgetter("event.position")


class Event:
    """An event as it is sent: its place in its job and in the log, its bytes, whether nothing follows it."""

    __slots__ = ("data", "final", "job_id", "number", "position", "row")

    def __init__(self, row: Mapping[str, Any]) -> None:
        """Make the frame of an event's row."""
        self.row = row
        self.job_id: str = row["job_id"]
        self.number: int = row["number"]
        self.position: int = row["position"] or 0
        self.data = pb.JobFrame(event=event_to_proto(row)).SerializeToString()
        self.final = row["state"] in FINAL_STATES


class Topic:
    """A watched job: its newest known event, the latest frames, and who watches."""

    __slots__ = ("events", "gone", "newest", "watchers")

    def __init__(self, newest: int) -> None:
        """Begin at the newest number that a watcher saw when it came."""
        self.newest = newest
        self.events: list[Event] = []
        self.watchers: set[Stream] = set()
        self.gone = False

    def add(self, event: Event) -> None:
        """Remember an event that is newer than what is known, and have every watcher look."""
        if event.number > self.newest:
            self.events.append(event)
            del self.events[:-PAGE]
            self.newest = event.number
            self.wake()

    def after(self, number: int) -> list[Event] | None:
        """Give the remembered events after a number, or None where some of them are not remembered."""
        if number >= self.newest:
            return []
        if not self.events or self.events[0].number > number + 1:
            return None
        return self.events[bisect_right(self.events, number, key=_NUMBER) :]

    def wake(self) -> None:
        """Have every watcher look."""
        for stream in self.watchers:
            stream.wake()


class Frame:
    """An event as the watchers of one filter see it."""

    __slots__ = ("data", "event", "leaves")

    def __init__(self, event: Event, token: str, *, leaves: bool) -> None:
        """Join the event's bytes with what is the filter's own."""
        self.event = event
        self.leaves = leaves
        self.data = self.with_token(token)

    def with_token(self, token: str) -> bytes:
        """Give the frame with a token; messages are joined by joining their bytes."""
        rest = pb.JobFrame(resume_token=token, leaves_filter=self.leaves)
        return self.event.data + rest.SerializeToString()


def judge(chosen: Filter, row: Mapping[str, Any]) -> bool | None:
    """Say whether an event's row leaves a filter; None where its job never was within.

    For a filter that is narrowed to servers the row has the ``server_id`` of its database. The filter is
    gone through as it is: what were made of it for speed would cost each watcher with one of its own.
    """
    if not _concerns(chosen, row):
        return None
    if _passes(chosen, row["state"], row["worker_id"]):
        return False
    was = row["previous_state"]
    return True if was is not None and _passes(chosen, was, row["previous_worker_id"]) else None


def _concerns(chosen: Filter, row: Mapping[str, Any]) -> bool:
    """Whether a job is within a filter but for what changes while it lives."""
    return (
        (not chosen.kinds or row["kind"] in chosen.kinds)
        and (not chosen.document_types or row["document_type"] in chosen.document_types)
        and (not chosen.database_id or row["database_id"] == chosen.database_id)
        and (not chosen.document_id or row["document_id"] == chosen.document_id)
        and (chosen.narrowing is None or chosen.narrowing.covers(row["database_id"], row.get("server_id")))
    )


def _passes(chosen: Filter, state: str, worker_id: str | None) -> bool:
    return (not chosen.states or state in chosen.states) and (
        not chosen.worker_ids or worker_id in chosen.worker_ids
    )


class Channel:
    """A watched filter: the latest events that concern it, and who watches.

    What it remembers is whole from ``since`` on, up to where the feed is.
    """

    __slots__ = ("_frames", "_last", "chosen", "seal", "since", "watchers")

    def __init__(self, chosen: Filter, seal: Seal, since: int) -> None:
        """Begin where the feed is."""
        self.chosen = chosen
        self.seal = seal
        self.since = since
        self.watchers: set[Stream] = set()
        self._frames: list[Frame] = []
        self._last: dict[str, int] = {}  # the position of the newest remembered event of each job

    def frame(self, event: Event) -> Frame | None:
        """Give an event as this filter's watchers see it, or None where it does not concern them."""
        leaves = judge(self.chosen, event.row)
        if leaves is None:
            return None
        return Frame(event, self.seal.make(event.position), leaves=leaves)

    def add(self, event: Event) -> None:
        """Remember an event of an owner within reach, and wake the watchers, where it concerns them."""
        frame = self.frame(event)
        if frame is None:
            return
        self._frames.append(frame)
        self._last[event.job_id] = event.position
        if len(self._frames) > PAGE:
            self._forget(1)
        for stream in self.watchers:
            stream.wake()

    def after(self, position: int) -> list[Frame] | None:
        """Give the remembered events behind a position, or None where some are not remembered."""
        if position < self.since:
            return None
        frames = self._frames
        if not frames or frames[-1].event.position <= position:
            return []
        return frames[bisect_right(frames, position, key=_POSITION) :]

    def outdated(self, event: Event) -> bool:
        """Whether a newer event of the same job is known."""
        return self._last.get(event.job_id, 0) > event.position

    def cut(self, floor: int) -> None:
        """Forget what lies below a floor, and that it was whole there; have every watcher look."""
        if floor > self.since:
            self._forget(sum(frame.event.position <= floor for frame in self._frames))
            self.since = floor
            for stream in self.watchers:
                stream.wake()

    def _forget(self, count: int) -> None:
        for frame in self._frames[:count]:
            event = frame.event
            self.since = event.position
            if self._last[event.job_id] == event.position:
                del self._last[event.job_id]
        del self._frames[:count]
