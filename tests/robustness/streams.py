"""What is promised to watchers, as functions from a history to what breaks the promise.

The names are those of etcd's robustness suite where it has them (Ordered, Unique, Reliable, Resumable,
Bookmarkable, Filtered, PrevState), and ours for Dense and FinalOnce.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from tests.robustness.case import Case
from tests.robustness.history import FINAL, Event, Frame
from tests.robustness.lines import Line, matches
from tests.robustness.violations import Violation

_SETTLED = 3.0
"""Seconds after which a change counts as seen by all: longer than any commit takes that succeeds."""


def ordered(case: Case) -> list[Violation]:
    """The events of a job come in the order of their numbers, behind what the snapshot said, and after it."""
    found = []
    for line in case.lines:
        newest: dict[str, Frame] = {}
        for frame in line.frames:
            if frame.job is not None:
                newest[frame.job.id] = frame
            elif frame.event is not None:
                before = newest.get(frame.event.job_id) or line.last(frame.event.job_id)
                if before is not None and frame.event.number < _number(before):
                    found.append(Violation("Ordered", f"{line.watcher} went back", (before, frame)))
                newest[frame.event.job_id] = frame
        synced = [n for n, frame in enumerate(line.frames) if frame.kind == "sync"]
        early = [frame for frame in line.frames[: synced[-1] if synced else 0] if frame.event is not None]
        inherited = line.last()
        early += [inherited] if synced and inherited is not None else []
        found += [Violation("Ordered", "an event came before the snapshot's end", (f,)) for f in early[:1]]
    return found


def _number(frame: Frame) -> int:
    if frame.job is not None:
        return frame.job.last_sequence
    return frame.event.number if frame.event is not None else 0


def unique(case: Case) -> list[Violation]:
    """No event comes twice, and none that the snapshot held already."""
    found = []
    for line in case.lines:
        held = {id: frame for id, frame in line.snapshot.items() if frame.job is not None}
        seen: dict[tuple[str, int], Frame] = {}
        for frame in line.events:
            event = frame.event
            if event is None:
                continue
            key = (event.job_id, event.number)
            before = seen.get(key) or line.inherits(*key)
            if before is None and event.job_id in held and _number(held[event.job_id]) == event.number:
                before = held[event.job_id]
            if before is not None:
                found.append(Violation("Unique", f"{line.watcher} saw {key} twice", (before, frame)))
            seen[key] = frame
    return found


def dense(case: Case) -> list[Violation]:
    """The numbers of a job have no gap, where the filter explains none: a client can tell by itself."""
    found = []
    for line in case.lines:
        if line.conflate or not line.fixed:
            continue
        newest: dict[str, Frame] = {}
        for frame in line.events:
            event = frame.event
            if event is None:
                continue
            job_id = event.job_id
            before = newest.get(job_id) or line.last(job_id) or line.snapshot.get(job_id)
            gap = event.number > _number(before) + 1 if before is not None else _begins_late(line, event)
            if gap:
                evidence = (frame,) if before is None else (before, frame)
                found.append(Violation("Dense", f"{line.watcher} saw a gap before {event.number}", evidence))
            newest[event.job_id] = frame
    return found


def _begins_late(line: Line, event: Event) -> bool:
    """Whether the first event that is seen of a job should have come after others."""
    return event.number > 1 and line.from_start


def reliable(case: Case) -> list[Violation]:
    """Every committed change that matches is delivered; to who conflates, the final and the last ones."""
    found = []
    for line in case.lines:
        seen = {(f.event.job_id, f.event.number) for f in line.frames if f.event is not None}
        wanted = case.due(line)
        last = {event.job_id: event for event in wanted}
        for event in wanted:
            needed = (
                not line.conflate or event.state in FINAL or (line.complete and last[event.job_id] is event)
            )
            key = (event.job_id, event.number)
            if needed and key not in seen and line.inherits(*key) is None:
                text = f"{line.watcher} never saw {event.job_id} {event.number} ({line.filter})"
                found.append(Violation("Reliable", text, (event, *_around(line, event))))
    return found + _left_out(case)


def _around(line: Line, event: Event) -> list[Frame]:
    """Give the frames of the same job around what is missing."""
    same = [f for f in line.events if f.event is not None and f.event.job_id == event.job_id]
    inherited = line.last(event.job_id)
    before = [frame for frame in [inherited, *same] if frame is not None and _number(frame) < event.number]
    return before[-1:] + [frame for frame in same if _number(frame) > event.number][:1]


def _left_out(case: Case) -> list[Violation]:
    """Find what a snapshot should have held: jobs that matched long before it, and still long after it."""
    chains = case.chains
    found = []
    for line in case.lines:
        syncs = [frame for frame in line.frames if frame.kind == "sync"]
        held = line.snapshot if syncs else {}
        if not syncs or not held or line.trunk is not None:
            continue
        begin, end = line.frames[0].time - _SETTLED, syncs[-1].time + _SETTLED
        for chain in chains.values():
            for event, after in zip(chain, [*chain[1:], None], strict=True):
                stays = event.create_time < begin and (after is None or after.create_time > end)
                if stays and matches(line.filter, event)[1] and event.job_id not in held:
                    text = f"the snapshot of {line.watcher} left out {event.job_id}"
                    found.append(Violation("Reliable", text, (event, syncs[-1])))
    return found


def resumable(case: Case) -> list[Violation]:
    """A stream that was opened with an event's token begins with the very next event."""
    return [Violation("Resumable", *found) for found in _bad_joints(case, bookmarks=False)]


def bookmarkable(case: Case) -> list[Violation]:
    """So does one opened with the token of a heartbeat, or of the snapshot's end."""
    return [Violation("Bookmarkable", *found) for found in _bad_joints(case, bookmarks=True)]


def _bad_joints(case: Case, *, bookmarks: bool) -> Iterator[tuple[str, tuple[Frame | Event, ...]]]:
    for line in case.lines:
        if line.conflate:
            continue
        wanted = case.due(line)
        places = {(event.job_id, event.number): place for place, event in enumerate(wanted)}
        for joint in line.joints:
            opened = line.before(joint)
            if opened is None or (opened.kind != "event") is not bookmarks:
                continue
            before, after = line.event_before(joint), line.event_from(joint)
            if before is None or after is None or before.event is None or after.event is None:
                continue
            branched = before is line.last()
            one = -1 if branched else places.get((before.event.job_id, before.event.number))
            two = places.get((after.event.job_id, after.event.number))
            if one is not None and two is not None and two != one + 1:
                missing = tuple(wanted[one + 1 : two][:1])
                yield f"{line.watcher} went on {two - one - 1} events off", (before, *missing, after)


def filtered(case: Case) -> list[Violation]:
    """Whatever comes matches the filter, and what leaves it is marked so, and nothing else is."""
    found = []
    for line in case.lines:
        for frame in line.frames:
            if frame.job is not None and not _holds(line, frame):
                found.append(Violation("Filtered", f"{line.watcher} did not ask for this job", (frame,)))
            if frame.event is None:
                continue
            before, after = matches(line.filter, frame.event)
            if not (before or after):
                found.append(Violation("Filtered", f"{line.watcher} did not ask for this", (frame,)))
            elif not line.conflate and not line.filter.job_id and frame.leaves != (before and not after):
                found.append(Violation("Filtered", f"leaves_filter is wrong for {line.filter}", (frame,)))
    return found


def _holds(line: Line, frame: Frame) -> bool:
    job, wanted = frame.job, line.filter
    return job is not None and (
        wanted.owner_id in ("-", job.owner_id)
        and wanted.document_id in ("", job.document_id)
        and (not wanted.kinds or job.kind in wanted.kinds)
        and (not wanted.document_types or job.document_type in wanted.document_types)
        and (not wanted.states or job.state in wanted.states)
        and (not wanted.worker_ids or job.worker_id in wanted.worker_ids)
    )


def prev_state(case: Case) -> list[Violation]:
    """Each event tells truly what was before it, and each frame what the table has."""
    found = []
    for chain in case.chains.values():
        for one, two in pairwise(chain):
            told = two.previous_state, two.previous_percentage, two.previous_worker_id
            held = one.worker_id if one.state == "PROCESSING" else ""
            if two.number == one.number + 1 and told != (one.state, one.percentage, held):
                found.append(Violation("PrevState", f"{two.number} does not follow", (one, two)))
    kept = {(event.job_id, event.number): event for event in case.history.events}
    for line in case.lines:
        for frame in line.frames:
            found += _untrue(line, frame, kept)
    return found


def _untrue(line: Line, frame: Frame, kept: dict[tuple[str, int], Event]) -> list[Violation]:
    if frame.event is not None:
        event = kept.get((frame.event.job_id, frame.event.number))
        if event is None:
            return [Violation("PrevState", "an event was seen that was never kept", (frame,))]
        if not line.conflate and event.told() != frame.event.told():
            return [Violation("PrevState", "an event was told otherwise than it is kept", (event, frame))]
    if frame.job is not None:
        event = kept.get((frame.job.id, frame.job.last_sequence))
        job = frame.job
        if event is not None and (event.state, event.attempt, event.percentage) != (
            job.state,
            job.attempt,
            job.percentage,
        ):
            return [Violation("PrevState", "the snapshot does not agree with the events", (event, frame))]
    return []


def final_once(case: Case) -> list[Violation]:
    """A job ends once: nothing is kept, and nothing comes, after its final event."""
    found = []
    for chain in case.chains.values():
        found += [
            Violation("FinalOnce", "a job went on after its end", (one, two))
            for one, two in pairwise(chain)
            if one.state in FINAL
        ]
    for line in case.lines:
        ends: dict[str, Frame] = {}
        for frame in line.events:
            event = frame.event
            if event is None:
                continue
            end = ends.get(event.job_id) or line.last(event.job_id)
            if end is not None and end.event is not None and end.event.state in FINAL:
                found.append(Violation("FinalOnce", f"{line.watcher} saw more after the end", (end, frame)))
            if event.state in FINAL:
                ends[event.job_id] = frame
    return found


STREAMS = (ordered, unique, dense, reliable, resumable, bookmarkable, filtered, prev_state, final_once)
