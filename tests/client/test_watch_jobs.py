"""Following many jobs: the snapshot, every change once, and going on after each kind of end."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import grpc
import pytest

from morag_client import JobsWatch, refusal_of, watch_jobs
from moragmeta.v1 import jobs_pb2
from tests.client.conftest import Owner
from tests.processes import ServerProcess

_CHECKS = jobs_pb2.JobFilter(kinds=["CHECK"])


def _first(watch: JobsWatch, kind: str) -> jobs_pb2.JobFrame:
    return next(frame for frame in watch if frame.WhichOneof("frame") == kind)


def _events_until_final(watch: JobsWatch, jobs: list[jobs_pb2.Job]) -> dict[str, list[int]]:
    seen: dict[str, list[int]] = defaultdict(list)
    open_jobs = {job.id for job in jobs}
    for frame in watch:
        if frame.HasField("event"):
            seen[frame.event.job_id].append(frame.event.sequence)
            if frame.event.state == jobs_pb2.JOB_STATE_CANCELLED:
                open_jobs.discard(frame.event.job_id)
        if not open_jobs:
            break
    return seen


def test_snapshot_then_sync_then_every_change(owner: Owner) -> None:
    """What matches now comes first, then the sync frame with their number, then what changes."""
    jobs = [owner.job(), owner.job()]
    owner.job("OTHER")
    with watch_jobs(owner.channel, _CHECKS, include_snapshot=True) as watch:
        snapshot = list(takewhile(lambda frame: not frame.HasField("sync"), watch))
        owner.cancel(jobs[0])
        event = _first(watch, "event").event
    assert sorted(frame.snapshot.id for frame in snapshot) == sorted(job.id for job in jobs)
    assert (event.job_id, event.sequence) == (jobs[0].id, 2)


def test_another_watch_goes_on_behind_a_token(owner: Owner) -> None:
    """What happened between two watches is told by the second, once."""
    job = owner.job()
    with watch_jobs(owner.channel, _CHECKS, include_snapshot=True) as watch:
        token = _first(watch, "sync").resume_token
        assert watch.resume_token == token
    owner.cancel(job)
    with watch_jobs(owner.channel, _CHECKS, resume_token=token) as watch:
        assert _first(watch, "event").event.sequence == 2


def test_watch_goes_on_after_the_server_was_killed(mortal: Owner, process: ServerProcess) -> None:
    """Over two SIGKILLs every event of every job is seen once and in order."""
    jobs: list[jobs_pb2.Job] = []
    with watch_jobs(mortal.channel, _CHECKS, include_snapshot=True) as watch:
        _first(watch, "sync")
        for _ in range(3):
            jobs += [mortal.job() for _ in range(5)]
            for job in jobs[-10:-5]:
                mortal.cancel(job)
            if len(jobs) < 15:
                process.kill()
                process.start(90.0)
        for job in jobs[-5:]:
            mortal.cancel(job)
        seen = _events_until_final(watch, jobs)
    assert seen == {job.id: [1, 2] for job in jobs}


def test_events_that_are_gone_end_the_watch_or_restart_it(owner: Owner) -> None:
    """Without `restart` the watch ends with OUT_OF_RANGE; with it, it begins anew with a snapshot."""
    job, kept = owner.job(), owner.job()
    with watch_jobs(owner.channel, _CHECKS, include_snapshot=True) as watch:
        token = _first(watch, "sync").resume_token
    owner.cancel(job)
    with watch_jobs(owner.channel, _CHECKS, resume_token=token) as watch:
        _first(watch, "event")
    request = jobs_pb2.PurgeJobsRequest()
    request.end_time_before.FromDatetime(datetime.now(UTC) + timedelta(minutes=1))
    assert owner.stub.PurgeJobs(request).purged_jobs == 1
    with (
        pytest.raises(grpc.RpcError) as caught,
        watch_jobs(owner.channel, _CHECKS, resume_token=token) as watch,
    ):
        next(watch)
    assert refusal_of(caught.value).reason == "POSITION_TRIMMED"
    with watch_jobs(owner.channel, _CHECKS, resume_token=token, restart=True) as watch:
        assert _first(watch, "snapshot").snapshot.id == kept.id
        assert _first(watch, "sync").sync.snapshot_size == 1


def test_token_of_another_filter_is_refused(owner: Owner) -> None:
    """Trying again would not mend it: the watch ends."""
    with watch_jobs(owner.channel, _CHECKS) as watch:
        token = next(watch).resume_token
    other = jobs_pb2.JobFilter(kinds=["OTHER"])
    with pytest.raises(grpc.RpcError) as caught:
        next(watch_jobs(owner.channel, other, resume_token=token, restart=True))
    assert refusal_of(caught.value).reason == "INVALID_RESUME_TOKEN"


def test_watch_is_closed_from_another_thread(owner: Owner) -> None:
    """Closing ends an iteration that waits, and one that was never begun."""
    watch = watch_jobs(owner.channel, _CHECKS)
    next(watch)
    threading.Timer(0.3, watch.close).start()
    assert [frame for frame in watch if frame.HasField("event")] == []
    never = watch_jobs(owner.channel, _CHECKS)
    never.close()
    assert list(never) == []
