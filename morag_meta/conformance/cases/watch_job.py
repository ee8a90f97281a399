"""WatchJob: every event of a job, in order, exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from morag_meta.conformance.waits import missing_id
from moragmeta.v1 import api_keys_pb2
from moragmeta.v1 import jobs_pb2 as pb

AREA = Area("WatchJob")
_PATIENCE = 15.0


def _finished(bench: Bench) -> pb.Job:
    """Give a job with five events: made, started, two reports, FINISHED."""
    job = bench.running()
    bench.progress(job, 1, 10)
    bench.progress(job, 2, 70)
    return bench.complete(job, 3).job


@AREA.case
def history_comes_first(bench: Bench) -> None:
    """From 0 every event comes in order without a gap, and after the final one the stream ends with OK."""
    job = _finished(bench)
    with bench.watch(job.id) as stream:
        events = stream.rest()
    same("the numbers", [event.sequence for event in events], [1, 2, 3, 4, 5])
    same("the last state", events[-1].state, pb.JOB_STATE_FINISHED)


@AREA.case
def a_stream_tells_what_is_kept(bench: Bench) -> None:
    """The events of a stream are those that ListJobEvents lists."""
    job = _finished(bench)
    with bench.watch(job.id) as stream:
        watched = stream.rest()
    listed = bench.mine.jobs.ListJobEvents(pb.ListJobEventsRequest(job_id=job.id)).events
    same("how many events there are", len(watched), 5)
    same("the events", watched, list(listed))


@AREA.case
def each_event_continues_the_one_before(bench: Bench) -> None:
    """Each event's previous state and percentage are those of the event before it."""
    with bench.watch(_finished(bench).id) as stream:
        events = stream.rest()
    before = [(event.previous_state, event.previous_percentage) for event in events]
    after = [(pb.JOB_STATE_UNSPECIFIED, 0), *((event.state, event.percentage) for event in events[:-1])]
    same("previous state and percentage", before, after)


@AREA.case
def a_stream_resumes_anywhere(bench: Bench) -> None:
    """After any number exactly the events behind it come; after the last one the stream ends with OK."""
    job = _finished(bench)
    for seen in range(1, 6):
        with bench.watch(job.id, seen) as stream:
            numbers = [event.sequence for event in stream.rest()]
        same(f"the numbers after {seen}", numbers, list(range(seen + 1, 6)))


@AREA.case
def changes_come_live(bench: Bench) -> None:
    """What changes while a stream is open arrives on it, in order, up to the end."""
    job = bench.add_job()
    with bench.watch(job.id) as stream:
        same("the first number", stream.events(1)[0].sequence, 1)
        changes: list[Callable[[], object]] = [
            lambda: bench.started(job.id),
            lambda: bench.progress(bench.job(job.id), 1, 50),
            lambda: bench.complete(bench.job(job.id), 2),
        ]
        for number, change in enumerate(changes, start=2):
            change()
            same("the next number", stream.events(1)[0].sequence, number)
        same("what follows the final event", stream.rest(), [])


@AREA.case
def watchers_see_the_same(bench: Bench) -> None:
    """Two streams on one job tell the same events."""
    job = bench.running()
    with bench.watch(job.id) as one, bench.watch(job.id) as two:
        one.events(2)
        bench.progress(job, 1, 50)
        bench.cancel(job.id)
        same("the events", [event.sequence for event in one.rest()], [3, 4])
        same("the events of the other", [event.sequence for event in two.rest()], [1, 2, 3, 4])


@AREA.case
def a_position_beyond_the_end_is_refused(bench: Bench) -> None:
    """A number beyond the last event is OUT_OF_RANGE, and the answer names the last one."""
    job = bench.add_job()
    with refused("OUT_OF_RANGE", "POSITION_BEYOND_END", last_sequence="1"), bench.watch(job.id, 2) as stream:
        stream.ended()


@AREA.case
def a_negative_position_is_refused(bench: Bench) -> None:
    """A negative number is INVALID_ARGUMENT."""
    job = bench.add_job()
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "after_sequence"), bench.watch(job.id, -1) as stream:
        stream.ended()


@AREA.case
def a_missing_job_is_not_found(bench: Bench) -> None:
    """The stream of a job that does not exist is NOT_FOUND."""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="job"), bench.watch(missing_id()) as stream:
        stream.ended()


@AREA.admin_case
def another_ones_job_is_not_found(bench: Bench) -> None:
    """The stream of another user's job is NOT_FOUND; an ADMIN may watch it."""
    job = bench.add_job()
    others = bench.watch(job.id, by=bench.other.caller)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="job"):
        others.ended()
    same("what an ADMIN sees", bench.watch(job.id, by=bench.admin).events(1)[0].sequence, 1)


@AREA.case
def silence_is_broken(bench: Bench) -> None:
    """A stream on which nothing happens sends a heartbeat with the number to resume after."""
    job = bench.running()
    with bench.watch(job.id, 2) as stream:
        beat = stream.frames("heartbeat")[-1].heartbeat
    same("its number", beat.sequence, 2)
    holds("a server_time", fact=beat.HasField("server_time"), seen="none")


@AREA.case
def a_revoked_key_ends_the_stream(bench: Bench) -> None:
    """A stream ends with UNAUTHENTICATED soon after its key was revoked."""
    key_id, caller = bench.add_key("jobs:read")
    with bench.watch(bench.add_job().id, by=caller) as stream:
        stream.events(1)
        bench.mine.api_keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(id=key_id))
        begun = time.monotonic()
        with refused("UNAUTHENTICATED", "CREDENTIAL_INVALID"):
            stream.ended()
        took = time.monotonic() - begun
        holds(f"an end within {_PATIENCE:g} s", fact=took < _PATIENCE, seen=f"{took:.1f} s")


@AREA.case
def a_stream_needs_the_scope(bench: Bench) -> None:
    """A key without `jobs:read` is PERMISSION_DENIED."""
    _, caller = bench.add_key("servers:read")
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"), bench.watch(bench.add_job().id, by=caller) as stream:
        stream.ended()
