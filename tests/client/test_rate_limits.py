"""Clients whose key may make so many calls a second, or whose user has no place left to wait in."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import grpc
import pytest

from morag_client import Task, Worker, connect, refusal_of, watch_job, watch_jobs
from moragmeta.v1 import api_keys_pb2, jobs_pb2, users_pb2
from moragmeta.v1.users_pb2_grpc import UserServiceStub
from tests.backends.databases import Backend
from tests.client.conftest import Line, Owner, until
from tests.client.test_worker import FINISHED, PENDING, PROCESSING, working
from tests.service import User, serving


@dataclass
class Beat:
    """A heartbeat: when it was sent, and for how many seconds it was told to wait."""

    time: float
    told: float = 0.0


class Refused(grpc.UnaryUnaryClientInterceptor):
    """Counts what a channel is refused, by method and reason, and notes the heartbeats of each lease."""

    def __init__(self) -> None:
        self.count: Counter[tuple[str, str]] = Counter()
        self.beats: defaultdict[str, list[Beat]] = defaultdict(list)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Call, and look at what comes of it."""
        method, beat = details.method.rpartition("/")[2], Beat(time.monotonic())
        if method == "HeartbeatJob":
            self.beats[request.lease_token].append(beat)
        call = continuation(details, request)

        def note(done: Any) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                refusal = refusal_of(error)
                beat.told = refusal.retry_after
                self.count[method, refusal.reason] += 1

        call.add_done_callback(note)
        return call


class Limited(Owner):
    """The same user by a key that may make so many calls a second."""

    def __init__(self, target: str, user: User, per_second: float, burst: int) -> None:
        rate = api_keys_pb2.RateLimit(per_second=per_second, burst=burst)
        key = api_keys_pb2.ApiKey(
            name=f"limited {uuid.uuid4()}", scopes=["jobs:work", "jobs:read"], rate_limit=rate
        )
        made = user.channel.api_keys.CreateApiKey(api_keys_pb2.CreateApiKeyRequest(api_key=key))
        super().__init__(target, made.secret)
        self.refused = Refused()
        self._bare, self.channel = self.channel, grpc.intercept_channel(self.channel, self.refused)

    def use_up(self) -> None:
        """Call until the key may not."""
        _use_up(self._bare)

    def close(self) -> None:
        """Disconnect."""
        self._bare.close()


def _use_up(channel: grpc.Channel) -> None:
    """Call what the key's scopes do not allow, which counts as well, until it is the rate that refuses."""
    stub, reason = UserServiceStub(channel), ""
    while reason != "RATE_LIMITED":
        try:
            stub.GetUser(users_pb2.GetUserRequest(id="me"))
        except grpc.RpcError as error:
            reason = refusal_of(error).reason


@contextmanager
def _limited(target: str, user: User, per_second: float, burst: int) -> Iterator[Limited]:
    made = Limited(target, user, per_second, burst)
    try:
        yield made
    finally:
        made.close()


def _rate_limited(limited: Limited, method: str) -> int:
    return limited.refused.count[method, "RATE_LIMITED"]


def test_worker_outlives_its_keys_rate(owner: Owner, user: User) -> None:
    """Beyond the key's rate a worker waits: every job is FINISHED, once, and the worker goes on."""
    jobs = [owner.job() for _ in range(6)]
    with _limited(owner.target, user, 3, 2) as limited:
        with working(limited, lambda _: jobs_pb2.JobResult(chunks=1), concurrency=3):
            until(lambda: owner.ended(*jobs))
            last = owner.job()
            until(lambda: owner.ended(last))
        refused = sum(limited.refused.count.values())
    for job in map(owner.now, (*jobs, last)):
        assert (job.state, job.attempt, job.error, job.lost_leases) == (FINISHED, 1, "", 0)
    assert refused > 0


def test_finished_work_is_not_failed_by_a_rate_limit(owner: Owner, user: User) -> None:
    """The report of the end is repeated until the key may make it, and nothing else is reported."""
    job = owner.job()
    with _limited(owner.target, user, 0.2, 6) as limited:  # a call each 5 s, so that the next is refused

        def handle(task: Task) -> jobs_pb2.JobResult:
            limited.use_up()
            return jobs_pb2.JobResult(chunks=3)

        with working(limited, handle):
            until(lambda: owner.ended(job))
        assert _rate_limited(limited, "CompleteJob") > 0
        assert _rate_limited(limited, "FailJob") == 0
    done = owner.now(job)
    assert (done.state, done.report_number, done.result.chunks) == (FINISHED, 1, 3)


def test_progress_waits_for_the_keys_rate(owner: Owner, user: User) -> None:
    """Reports beyond the rate are made later, each once and in order."""
    job = owner.job()
    with _limited(owner.target, user, 2, 4) as limited:

        def handle(task: Task) -> None:
            for percentage in range(0, 80, 10):
                task.progress(percentage)

        with working(limited, handle):
            until(lambda: owner.ended(job))
        assert _rate_limited(limited, "UpdateJobProgress") > 0
    percentages = [event.percentage for event in owner.events(job) if event.state == PROCESSING]
    assert percentages[1:] == [*range(0, 80, 10)]


def test_heartbeats_wait_as_long_as_they_are_told(owner: Owner, user: User) -> None:
    """A heartbeat beyond the rate comes when the service said, not again and again until then."""
    job, left = owner.job(), threading.Event()
    with _limited(owner.target, user, 0.2, 6) as limited:

        def handle(task: Task) -> None:
            limited.use_up()
            left.clear()
            try:
                task.rest(60)
            finally:
                left.set()

        with working(limited, handle, lease_duration=9.0):  # a beat is due after 3 s, a call allowed after 5
            until(lambda: [beat for beat, _ in _repeated(limited) if beat.told])
            owner.cancel(job)  # or the worker would wait for a call with which to give it back
            until(left.is_set)
        assert all(after.time - beat.time >= beat.told for beat, after in _repeated(limited))
        assert _rate_limited(limited, "HeartbeatJob") > 0


def _repeated(limited: Limited) -> list[tuple[Beat, Beat]]:
    """Give each heartbeat that was followed by another for the same lease, and that."""
    return [pair for beats in list(limited.refused.beats.values()) for pair in pairwise(beats)]


def test_watches_wait_for_the_keys_rate(owner: Owner, user: User) -> None:
    """A stream that may not be opened yet is opened when it may."""
    job = owner.job()
    with _limited(owner.target, user, 1, 3) as limited:
        limited.use_up()
        with watch_jobs(limited.channel, include_snapshot=True) as watch:
            assert next(watch).snapshot.id == job.id
        limited.use_up()
        with watch_job(limited.channel, job.id) as events:
            assert next(events).sequence == 1


def test_watch_tells_a_rate_limit_when_its_patience_ends(owner: Owner, user: User) -> None:
    """With patience for no more than a moment the refusal is the caller's to see."""
    with _limited(owner.target, user, 0.1, 1) as limited:
        limited.use_up()
        with watch_jobs(limited.channel, patience=0.0) as watch, pytest.raises(grpc.RpcError) as caught:
            next(watch)
    assert refusal_of(caught.value).reason == "RATE_LIMITED"


def test_stopped_worker_gives_back_as_soon_as_its_key_may(
    line: Line, owner: Owner, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was leased when the worker stopped is asked for again, and given back, beyond the rate too."""
    monkeypatch.setattr("morag_client.worker._RECLAIM_SECONDS", 10.0)  # longer than a machine pauses
    job = owner.job()
    for _ in range(5):  # as a key may have a call again before the worker asks, if seldom
        with _limited(line.target, user, 0.75, 6) as limited:
            refused = _stop_amid_leasing(line, owner, limited, job)
        assert owner.now(job).state == PENDING
        if refused:
            break
    assert refused > 0


def _stop_amid_leasing(line: Line, owner: Owner, limited: Limited, job: jobs_pb2.Job) -> int:
    """Lose the answer to a worker's lease, use its key up and stop it; give how often it was refused then."""
    worker = Worker(limited.channel, lambda _: None, grace=0.0)
    thread, lost, before = threading.Thread(target=worker.run), line.lost, 0

    def stopped() -> bool:
        nonlocal before
        if owner.now(job).state != PROCESSING:
            return False
        with connect(owner.target, limited.key) as direct:
            _use_up(direct)
        before = _rate_limited(limited, "LeaseJobs")
        worker.stop()
        return True

    line.lose_answer(b"WorkerService/LeaseJobs", stopped)
    thread.start()
    until(lambda: line.lost > lost)
    thread.join(30)
    assert not thread.is_alive()
    return _rate_limited(limited, "LeaseJobs") - before


def test_worker_without_a_place_to_wait_in_asks_again(backend: Backend) -> None:
    """Where its user's places are taken a worker asks without waiting, now and then, and does its jobs."""
    with serving(backend, stream_limit=2) as service:
        user = service.new_user()
        owner = Owner(service.target, user.key)
        refused = Refused()
        channel, owner.channel = owner.channel, grpc.intercept_channel(owner.channel, refused)
        with watch_jobs(channel, include_snapshot=True) as watch:
            next(watch)
            begun = time.monotonic()
            with working(owner, lambda _: None):  # whose own stream takes the second place
                until(lambda: refused.count["LeaseJobs", "TOO_MANY_STREAMS"] >= 2)
                job = owner.job()
                until(lambda: owner.ended(job))
                asked = refused.count["LeaseJobs", "TOO_MANY_STREAMS"]
                seconds = time.monotonic() - begun
        assert owner.now(job).state == FINISHED
        assert asked <= seconds + 1
        channel.close()


def test_stream_beyond_the_limit_is_not_tried_again(backend: Backend) -> None:
    """A watch that has no place is told at once, for streams stay for as long as somebody reads them."""
    with serving(backend, stream_limit=1) as service:
        owner = Owner(service.target, service.new_user().key)
        with watch_jobs(owner.channel) as first, watch_jobs(owner.channel, patience=5.0) as second:
            next(first)
            begun = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                next(second)
            assert time.monotonic() - begun < 4.5
        assert refusal_of(caught.value).reason == "TOO_MANY_STREAMS"
        owner.channel.close()
