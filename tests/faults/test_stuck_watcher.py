"""Watchers that do not read: cut off with the number to resume after, while others see everything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.rpc import error_details_pb2, status_pb2
from structlog.testing import capture_logs

from morag_meta.db.schema import job_events, jobs
from moragmeta.v1 import jobs_pb2
from tests.backends.databases import Backend
from tests.faults.outage import new_job
from tests.service import Service, User, serving

EVENTS = 1500
WRITE_TIMEOUT, PATIENCE = 1.0, 15.0
_WATCH = "/moragmeta.v1.JobService/WatchJob"
# A window that stays small, so that what is sent soon has nowhere to go.
_NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))


@pytest.fixture(scope="module")
def impatient(backend: Backend) -> Iterator[Service]:
    """Serve with a short patience for readers that take nothing."""
    with serving(backend, stream_write_timeout=WRITE_TIMEOUT, stream_heartbeat=0.5) as started:
        yield started


@pytest.fixture(scope="module")
def patient(backend: Backend) -> Iterator[Service]:
    """Serve with more patience for readers that take nothing than anybody else is to notice."""
    with serving(backend, stream_write_timeout=PATIENCE, stream_heartbeat=0.5) as started:
        yield started


def _long_job(service: Service, user: User) -> str:
    """Make a job with more events than any buffer holds: eight kilobytes each."""
    job_id = new_job(user)
    summary = "\U0001f600" * 2000
    with service.database.unit_of_work() as uow:
        first = uow.one(sa.select(job_events).where(job_events.c.job_id == job_id))
        assert first is not None
        rows = [{**first, "number": number, "summary": summary} for number in range(2, EVENTS + 1)]
        uow.run_many(sa.insert(job_events), rows)
        uow.run(sa.update(jobs).where(jobs.c.id == job_id).values(event_number=EVENTS))
        uow.commit()
    return job_id


def _watch(channel: grpc.Channel, user: User, job_id: str, after: int = 0) -> Any:
    stub: Any = channel.unary_stream(_WATCH, response_deserializer=jobs_pb2.JobFrame.FromString)
    request = jobs_pb2.WatchJobRequest(job_id=job_id, after_sequence=after).SerializeToString()
    return stub(request, metadata=(("x-api-key", user.key),), timeout=60)


def _read(frames: Any) -> tuple[list[int], Any]:
    """Read a stream to its end; give the numbers of its events, and the error that ended it."""
    numbers = []
    try:
        for frame in frames:
            if frame.HasField("event"):
                numbers.append(frame.event.sequence)
                if frame.event.sequence == EVENTS:
                    frames.cancel()
    except grpc.RpcError as error:
        return numbers, error
    return numbers, None


def _reason(error: Any) -> tuple[str, str]:
    details = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert details.details[0].Unpack(info)
    return info.reason, info.metadata["resume_after_sequence"]


def test_a_watcher_that_never_reads_is_cut_and_can_resume(impatient: Service) -> None:
    """Who takes nothing for the write timeout hears where to resume, and then misses nothing."""
    user = impatient.new_user()
    job_id = _long_job(impatient, user)
    with grpc.insecure_channel(impatient.target, options=_NARROW) as channel:
        stuck = _watch(channel, user, job_id)
        impatient.wait_for_places(user, 1)
        impatient.wait_for_places(user, 0)  # as it was cut
        seen, error = _read(stuck)
        assert 0 < len(seen) < EVENTS
        reason, resume = _reason(error)
        assert (reason, int(resume)) == ("READER_TOO_SLOW", seen[-1])
        for _ in range(10):  # once, unless the machine pauses for as long as the server is patient
            if seen[-1] < EVENTS:
                seen += _read(_watch(channel, user, job_id, seen[-1]))[0]
    assert seen == list(range(1, EVENTS + 1))


def test_a_stuck_watcher_hinders_nobody(patient: Service) -> None:
    """Beside ten watchers that take nothing, one that reads sees a change while these are waited for."""
    user = patient.new_user()
    job_id = _long_job(patient, user)
    channels = [grpc.insecure_channel(patient.target, options=_NARROW) for _ in range(10)]
    stuck = [_watch(channel, user, job_id) for channel in channels]
    live = user.channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id, after_sequence=EVENTS))
    patient.wait_for_places(user, 11)
    began = time.monotonic()
    user.channel.jobs.StartJob(jobs_pb2.StartJobRequest(id=job_id))
    while not (frame := next(live)).HasField("event"):
        pass
    assert frame.event.sequence == EVENTS + 1
    assert time.monotonic() - began < PATIENCE / 2
    live.cancel()
    for channel in channels:
        channel.close()
    del stuck


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
def test_stopping_does_not_wait_for_a_stuck_watcher(backend: Backend) -> None:
    """A server with a watcher that takes nothing stops in a moment, far within its grace."""
    url = backend.new_url()
    service = Service(url, backend.name)
    user = service.new_user()
    job_id = _long_job(service, user)
    with grpc.insecure_channel(service.target, options=_NARROW) as channel:
        stuck = _watch(channel, user, job_id)
        service.wait_for_places(user, 1)
        time.sleep(1)
        began = time.monotonic()
        service.close(grace=30)
        assert time.monotonic() - began < 15
        stuck.cancel()
    backend.drop(url)


def test_a_watcher_that_leaves_in_the_middle_is_no_error(patient: Service) -> None:
    """Watchers that go away while something is sent to them are logged as gone, and never as unforeseen."""
    user = patient.new_user()
    job_id = _long_job(patient, user)
    with capture_logs() as logs:
        for _ in range(20):
            channel = grpc.insecure_channel(patient.target, options=_NARROW)
            frames = _watch(channel, user, job_id)
            next(frames)
            channel.close()
        limit = time.monotonic() + 30
        while sum(line.get("method") == "JobService.WatchJob" for line in logs) < 20:
            assert time.monotonic() < limit
            time.sleep(0.05)
    assert {line["code"] for line in logs if line.get("method") == "JobService.WatchJob"} == {"CANCELLED"}
    assert not [line for line in logs if line["event"] == "unforeseen error"]
