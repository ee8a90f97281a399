"""Following one job: every event once, whatever happens to the stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from morag_client import connect, refusal_of, watch_job
from moragmeta.v1 import jobs_pb2
from tests.backends.databases import Backend
from tests.client.conftest import Line, Owner
from tests.processes import ServerProcess
from tests.service import serving


@pytest.fixture
def restless(backend: Backend) -> Iterator[Owner]:
    """Give the user of a server whose streams live for about a second."""
    with serving(backend, stream_max_age=1.0, stream_heartbeat=0.1) as started:
        made = Owner(started.target, started.new_user().key)
        yield made
        made.channel.close()


def _work(owner: Owner, job: jobs_pb2.Job, reports: range) -> None:
    for number in reports:
        owner.stub.UpdateJobProgress(
            jobs_pb2.UpdateJobProgressRequest(id=job.id, attempt=1, report_number=number, percentage=number),
            wait_for_ready=True,
        )


def _end(owner: Owner, job: jobs_pb2.Job) -> None:
    owner.stub.CompleteJob(jobs_pb2.CompleteJobRequest(id=job.id, attempt=1, report_number=1000))


def test_every_event_comes_once_over_many_streams(restless: Owner) -> None:
    """Streams that the service ends for their age are resumed, until the job has ended."""
    job = restless.job()
    restless.stub.StartJob(jobs_pb2.StartJobRequest(id=job.id))
    seen: list[jobs_pb2.JobEvent] = []
    watcher = threading.Thread(target=lambda: seen.extend(watch_job(restless.channel, job.id)))
    watcher.start()
    pause = threading.Event()
    for number in range(1, 31):
        _work(restless, job, range(number, number + 1))
        pause.wait(0.1)
    _end(restless, job)
    watcher.join(30)
    assert seen == restless.events(job)
    assert [event.sequence for event in seen] == list(range(1, 34))


def test_watch_goes_on_after_the_server_was_killed(mortal: Owner, process: ServerProcess) -> None:
    """What happened before, and after SIGKILL and a new start, is seen once and in order."""
    job = mortal.job()
    mortal.stub.StartJob(jobs_pb2.StartJobRequest(id=job.id))
    _work(mortal, job, range(1, 6))
    with watch_job(mortal.channel, job.id) as watch:
        seen = [next(watch) for _ in range(7)]
        process.kill()
        process.start(90.0)
        _work(mortal, job, range(6, 11))
        _end(mortal, job)
        seen += watch
    assert [event.sequence for event in seen] == list(range(1, 14))
    assert watch.sequence == 13


def test_watch_begins_behind_a_number(owner: Owner) -> None:
    """Events up to the given number are not shown."""
    job = owner.job()
    owner.cancel(job)
    assert [event.sequence for event in watch_job(owner.channel, job.id, after=1)] == [2]


def test_watch_is_closed_from_another_thread(owner: Owner) -> None:
    """Closing ends an iteration that waits for an event."""
    watch = watch_job(owner.channel, owner.job().id)
    next(watch)
    threading.Timer(0.3, watch.close).start()
    assert list(watch) == []
    assert list(watch) == []


def test_what_trying_again_does_not_mend_is_raised(owner: Owner) -> None:
    """A job that does not exist, and a number beyond the last, end the watch with their reasons."""
    with pytest.raises(grpc.RpcError) as missing:
        next(watch_job(owner.channel, "01890000-0000-7000-8000-000000000000"))
    assert refusal_of(missing.value).code is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as beyond:
        next(watch_job(owner.channel, owner.job().id, after=7))
    assert refusal_of(beyond.value).reason == "POSITION_BEYOND_END"


def test_patience_has_an_end(line: Line, owner: Owner) -> None:
    """A watch that may give up does so when nothing came for that long, with the last error."""
    job = owner.job()
    with connect(line.target, owner.key) as channel:
        watch = watch_job(channel, job.id, patience=1.0)
        next(watch)
        line.refuse()
        line.cut()
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
    assert refusal_of(caught.value).code is grpc.StatusCode.UNAVAILABLE
