"""Ways to break a history that keeps every promise, each with the validator that must see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.robustness import history as records
from tests.robustness import leases, streams
from tests.robustness.history import Event, Frame, History
from tests.robustness.violations import Validator

Break = Callable[[History], None]


def _position(history: History, watcher: str, wanted: Callable[[Frame], bool], which: int = 0) -> int:
    found = [n for n, f in enumerate(history.frames) if f.watcher == watcher and wanted(f)]
    return found[which]


def _is_event(frame: Frame) -> bool:
    return frame.event is not None


def _in_middle(history: History, watcher: str = "watcher0") -> int:
    """Find an event of a job that the watcher saw more of, before and after."""
    counts: dict[str, int] = {}
    for place, frame in enumerate(history.frames):
        if frame.watcher != watcher or frame.event is None:
            continue
        counts[frame.event.job_id] = counts.get(frame.event.job_id, 0) + 1
        last = max(event.number for event in history.events if event.job_id == frame.event.job_id)
        if counts[frame.event.job_id] > 1 and frame.event.number < last:
            return place
    raise AssertionError("the history is too short")


def _swap(history: History) -> None:
    place = _in_middle(history)
    event = history.frames[place].event
    assert event is not None
    later = next(
        n
        for n, f in enumerate(history.frames[place + 1 :], place + 1)
        if f.watcher == "watcher0" and f.event is not None and f.event.job_id == event.job_id
    )
    one, two = history.frames[place], history.frames[later]
    history.frames[place] = replace(one, event=two.event)
    history.frames[later] = replace(two, event=one.event)


def _double(history: History) -> None:
    place = _position(history, "watcher0", _is_event)
    history.frames.insert(place, history.frames[place])


def lose(history: History) -> None:
    """Lose an event in the middle of a job that a watcher sees whole."""
    del history.frames[_in_middle(history)]


def _lose_leaving(history: History) -> None:
    del history.frames[_position(history, "watcher2", lambda frame: frame.leaves)]


def _lose_in_aside(history: History) -> None:
    """Make a look from an older token begin one event late."""
    aside = next(c for c in history.connections if c.watcher == "watcher0" and c.aside)
    place = _position(history, "watcher0", lambda f: f.connection == aside.number and f.event is not None)
    del history.frames[place]


def _lose_after(kind: str) -> Break:
    """Make a stream that was opened with the token of such a frame begin one event late."""

    def lose_first(history: History) -> None:
        for connection in history.connections:
            mine = [f for f in history.frames if f.watcher == connection.watcher]
            before = [f for f in mine if f.connection < connection.number]
            own = [f for f in mine if f.connection == connection.number and f.event is not None]
            seen = any(f.event is not None for f in before)
            if connection.aside or not seen or len(own) < 2 or before[-1].kind != kind:
                continue
            history.frames.remove(own[0])
            return
        raise AssertionError("no such stream")

    return lose_first


def _foreign(history: History) -> None:
    event = next(event for event in history.events if event.owner_id == "ben")
    history.frames.append(Frame("watcher1", 0, 0, 0.0, "event", event=replace(event, position=0)))


def _unmarked(history: History) -> None:
    place = _position(history, "watcher2", lambda frame: frame.leaves)
    history.frames[place] = replace(history.frames[place], leaves=False)


def _told_wrong(history: History) -> None:
    place = _position(history, "watcher0", _is_event)
    frame = history.frames[place]
    assert frame.event is not None
    history.frames[place] = replace(frame, event=replace(frame.event, percentage=77))


def _chain_broken(history: History) -> None:
    place = next(n for n, event in enumerate(history.events) if event.number == 2)
    history.events[place] = replace(history.events[place], previous_state="FINISHED")


def _ends_twice(history: History) -> None:
    last = next(event for event in reversed(history.events) if event.state in records.FINAL)
    again = replace(last, number=last.number + 1, previous_state=last.state)
    number = max(c.number for c in history.connections if c.watcher == "watcher0" and not c.aside)
    frame = Frame("watcher0", 0, number, 0.0, "event", event=replace(again, position=0))
    history.frames.append(frame)


def _two_tokens(history: History) -> None:
    _grant(history, lambda lease: lease | {"token": "another"}, again=True)


def _taken_early(history: History) -> None:
    _grant(history, lambda lease: lease | {"expire_time": 1e12})


def _grant(
    history: History, change: Callable[[dict[str, object]], dict[str, object]], *, again: bool = False
) -> None:
    """Change a lease of an attempt that expired."""
    expired = next(e for e in history.events if e.previous_state == "PROCESSING" and e.state == "PENDING")
    place, operation = next(
        (n, o)
        for n, o in enumerate(history.operations)
        if o.method == "LeaseJobs"
        and (o.answer["leases"][0]["job_id"], o.answer["leases"][0]["attempt"])
        == (expired.job_id, expired.attempt)
    )
    changed = replace(operation, answer={"leases": [change(operation.answer["leases"][0])]})
    history.operations[place : place + 1] = [operation, changed] if again else [changed]


def _too_late(history: History) -> None:
    last = next(e for e in history.events if e.state == "FINISHED")
    _change_event(history, lambda e: e is last, lambda e: replace(e, create_time=1e9))


def _used_after(history: History) -> None:
    second = next(
        o for o in history.operations if o.method == "LeaseJobs" and o.answer["leases"][0]["attempt"] == 2
    )
    lease = second.answer["leases"][0]
    request = {"job_id": lease["job_id"], "attempt": 1, "percentage": 0}
    answer = {"outcome": "APPLIED", "job_id": lease["job_id"]}
    late = replace(
        second,
        method="UpdateJobProgress",
        start=second.end + 1,
        end=second.end + 2,
        request=request,
        answer=answer,
    )
    history.operations.append(late)


def _job_lost(history: History) -> None:
    lost = history.jobs.pop()
    history.events = [event for event in history.events if event.job_id != lost.id]


def _end_lost(history: History) -> None:
    operation = next(o for o in history.operations if o.method == "CreateJob")
    state = next(job.state for job in history.jobs if job.id == operation.answer["job_id"])
    method = "CancelJob" if state != "CANCELLED" else "FailJob"
    history.operations.append(replace(operation, method=method))


def _made_twice(history: History) -> None:
    history.jobs.append(replace(history.jobs[0], id="twin"))


def _stuck(history: History) -> None:
    history.jobs[0] = replace(history.jobs[0], state="PROCESSING")


def _attempt_skipped(history: History) -> None:
    _change_event(history, lambda e: e.state == "PROCESSING", lambda e: replace(e, attempt=e.attempt + 1))


def _percentage_fell(history: History) -> None:
    _change_event(history, lambda e: e.previous_percentage > 0, lambda e: replace(e, percentage=-1))


def _too_many_lost(history: History) -> None:
    history.jobs[0] = replace(history.jobs[0], lost_leases=3, failure="")


def _change_event(
    history: History, wanted: Callable[[Event], bool], change: Callable[[Event], Event]
) -> None:
    place = next(n for n, event in enumerate(history.events) if wanted(event))
    history.events[place] = change(history.events[place])


def _event_missing(history: History) -> None:
    history.events.remove(next(event for event in history.events if event.number == 2))


def _row_differs(history: History) -> None:
    history.jobs[0] = replace(history.jobs[0], percentage=-5)


def _log_disordered(history: History) -> None:
    _change_event(history, lambda e: e.number == 2, lambda e: replace(e, position=10**9))


def _unnumbered(history: History) -> None:
    _change_event(history, lambda e: e.number == 2, lambda e: replace(e, position=0))


def _document_left(history: History) -> None:
    history.documents[0] = replace(history.documents[0], state="INGESTING")


def _two_open(history: History) -> None:
    history.jobs[0] = replace(history.jobs[0], state="PENDING")
    history.jobs.append(replace(history.jobs[0], id="twin", tag=""))


def _refused(history: History) -> None:
    history.operations[0] = replace(history.operations[0], code="UNAUTHENTICATED")


def _stream_failed(history: History) -> None:
    history.connections[0] = replace(history.connections[0], code="INTERNAL")


BREAKS: list[tuple[Validator, Break]] = [
    (streams.ordered, _swap),
    (streams.unique, _double),
    (streams.dense, lose),
    (streams.reliable, lose),
    (streams.reliable, _lose_leaving),
    (streams.resumable, _lose_after("event")),
    (streams.resumable, _lose_in_aside),
    (streams.bookmarkable, _lose_after("heartbeat")),
    (streams.filtered, _foreign),
    (streams.filtered, _unmarked),
    (streams.prev_state, _told_wrong),
    (streams.prev_state, _chain_broken),
    (streams.final_once, _ends_twice),
    (leases.single_holder, _two_tokens),
    (leases.single_holder, _taken_early),
    (leases.single_holder, _used_after),
    (leases.single_holder, _too_late),
    (leases.no_lost_job, _job_lost),
    (leases.no_lost_job, _end_lost),
    (leases.no_lost_job, _made_twice),
    (leases.no_stuck_job, _stuck),
    (leases.attempt_monotone, _attempt_skipped),
    (leases.attempt_monotone, _percentage_fell),
    (leases.attempt_monotone, _too_many_lost),
    (leases.events_match_row, _event_missing),
    (leases.events_match_row, _row_differs),
    (leases.events_match_row, _log_disordered),
    (leases.events_match_row, _unnumbered),
    (leases.document_follows_job, _document_left),
    (leases.document_follows_job, _two_open),
    (leases.answered, _refused),
    (leases.answered, _stream_failed),
]
