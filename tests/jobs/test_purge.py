"""PurgeJobs as callers see it, what retention does to a running service, and lists by worker."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.ids import new_id
from moragmeta.v1 import jobs_pb2 as pb
from tests.backends.databases import Backend
from tests.jobs.conftest import Work
from tests.jobs.written import write_jobs
from tests.refusals import refused
from tests.service import Service, User, serving

_SOON = dt.timedelta(hours=1)


def _later() -> Timestamp:
    time_ = Timestamp()
    time_.FromDatetime(dt.datetime.now(dt.UTC) + _SOON)
    return time_


def _purge(user: User, **fields: Any) -> pb.PurgeJobsResponse:
    given = {"end_time_before": _later()} | fields
    answer: pb.PurgeJobsResponse = user.channel.jobs.PurgeJobs(pb.PurgeJobsRequest(**given))
    return answer


def _end(work: Work, **fields: Any) -> str:
    job = work.add_job(kind="X", **fields)
    work.start(job.id)
    work.complete(job.id, 1)
    return job.id


def test_jobs_that_ended_go_at_once(work: Work) -> None:
    """A job that ended a moment ago is gone after the call, and so are its events; open ones stay."""
    ended = [_end(work) for _ in range(5)]
    opened = work.add_job(kind="X").id

    assert _purge(work.user) == pb.PurgeJobsResponse(purged_jobs=5)

    for job_id in ended:
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            work.job(job_id)
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            work.events(job_id)
    assert work.job(opened).state == pb.JOB_STATE_PENDING


def test_a_repeat_answers_what_the_first_call_removed(work: Work) -> None:
    """The same request id gives the first call's counts, removes nothing more, and takes no other body."""
    for _ in range(3):
        _end(work)
    request: dict[str, Any] = {"max_jobs": 2, "request_id": new_id(), "end_time_before": _later()}

    assert _purge(work.user, **request) == pb.PurgeJobsResponse(purged_jobs=2, more=True)
    assert _purge(work.user, **request) == pb.PurgeJobsResponse(purged_jobs=2, more=True)
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        _purge(work.user, **request | {"max_jobs": 1})
    assert _purge(work.user) == pb.PurgeJobsResponse(purged_jobs=1)


def test_the_filter_bounds_what_goes(work: Work) -> None:
    """Only jobs that match all parts of the filter go, and never one that is open, whatever it says."""
    worker_id = new_id()
    kept = [_end(work, priority=pb.JOB_PRIORITY_HIGH), work.add_job(kind="Y").id]
    job = work.add_job(kind="Y")
    work.cancel(job.id)

    assert _purge(work.user, filter=pb.JobFilter(kinds=["Y"], worker_ids=[worker_id])).purged_jobs == 0
    states = [pb.JOB_STATE_PENDING, pb.JOB_STATE_CANCELLED]
    assert _purge(work.user, filter=pb.JobFilter(kinds=["Y"], states=states)).purged_jobs == 1
    assert {work.job(job_id).id for job_id in kept} == set(kept)


def test_only_ones_own_jobs_go(service: Service, work: Work) -> None:
    """Nobody purges another's jobs but an ADMIN who names the owner; the caller's are meant otherwise."""
    other = Work(service.new_user())
    job_id = _end(other)

    for owner in (other.user.id, "-"):
        with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
            _purge(work.user, filter=pb.JobFilter(owner_id=owner))
    assert _purge(work.user).purged_jobs == 0
    assert _purge(service.admin).purged_jobs == 0
    assert other.job(job_id).id == job_id
    assert _purge(service.admin, filter=pb.JobFilter(owner_id=other.user.id)).purged_jobs == 1


def test_what_is_not_asked_for_rightly_is_refused(work: Work) -> None:
    """The time is required, and the number not negative; a large number means 1000."""
    with refused("INVALID_ARGUMENT", "", "end_time_before"):
        work.jobs.PurgeJobs(pb.PurgeJobsRequest())
    with refused("INVALID_ARGUMENT", "", "max_jobs"):
        _purge(work.user, max_jobs=-1)
    assert _purge(work.user, max_jobs=2_000_000_000) == pb.PurgeJobsResponse()


def test_a_retried_job_outlives_what_it_repeats(work: Work) -> None:
    """The successor of a purged job goes on, names no predecessor, and ends as ever."""
    job = work.add_job(kind="X")
    work.cancel(job.id)
    successor = work.jobs.RetryJob(pb.RetryJobRequest(id=job.id))
    assert successor.predecessor_id == job.id

    assert _purge(work.user).purged_jobs == 1
    assert work.job(successor.id).predecessor_id == ""
    work.start(successor.id)
    assert work.complete(successor.id, 1).job.state == pb.JOB_STATE_FINISHED


def test_a_watcher_from_before_a_purge_is_told(work: Work) -> None:
    """A resume token from before what was removed is OUT_OF_RANGE, and another owner's is not touched."""
    opened = work.add_job(kind="X").id
    frames = work.jobs.WatchJobs(pb.WatchJobsRequest(include_snapshot=True))
    token = next(frame.resume_token for frame in frames if frame.HasField("sync"))
    frames.cancel()
    _end(work)
    _purge(work.user)

    with refused("OUT_OF_RANGE", "POSITION_TRIMMED"):
        list(work.jobs.WatchJobs(pb.WatchJobsRequest(resume_token=token)))
    again = work.jobs.WatchJobs(pb.WatchJobsRequest(include_snapshot=True))
    assert next(again).snapshot.id == opened
    again.cancel()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
def test_a_running_service_keeps_to_its_retention(backend: Backend) -> None:
    """Jobs go MORAG_JOB_RETENTION after their end by themselves, and old events MORAG_EVENT_RETENTION."""
    with serving(backend, job_retention=2.0, event_retention=1.0) as short:
        work = Work(short.new_user())
        opened, ended = work.add_job(kind="X").id, _end(work)
        work.start(opened)
        for _ in range(200):
            left = work.jobs.ListJobEvents(pb.ListJobEventsRequest(job_id=opened)).events
            listed = [job.id for job in work.jobs.ListJobs(pb.ListJobsRequest()).jobs]
            if len(left) == 1 and ended not in listed:
                break
            time.sleep(0.05)
        assert listed == [opened]
        assert [event.sequence for event in left] == [2]
        with refused("OUT_OF_RANGE", "POSITION_TRIMMED") as refusal:
            list(work.jobs.WatchJob(pb.WatchJobRequest(job_id=opened)))
        assert refusal.metadata
        frames = work.jobs.WatchJob(pb.WatchJobRequest(job_id=opened, after_sequence=1))
        assert next(frames).event.sequence == 2
        frames.cancel()


def test_jobs_are_listed_by_their_workers(service: Service, user: User) -> None:
    """The filter's workers are those that hold a job, or held it when it ended; pages go on in order."""
    one, other = new_id(), new_id()
    with service.database.unit_of_work() as uow:
        given = [{"worker_id": worker} for worker in (one, other, None, one, one)]
        ids = write_jobs(uow, user.id, given, first=None)
        uow.commit()

    def listed(*workers: str, **fields: Any) -> list[str]:
        request = pb.ListJobsRequest(filter=pb.JobFilter(worker_ids=workers), page_size=2, **fields)
        page = user.channel.jobs.ListJobs(request)
        rest = listed(*workers, page_token=page.next_page_token) if page.next_page_token else []
        return [job.id for job in page.jobs] + rest

    assert set(listed(one)) == {ids[0], ids[3], ids[4]}
    assert len(listed(one)) == 3
    assert set(listed(one, other)) == {ids[0], ids[1], ids[3], ids[4]}
    assert listed(new_id()) == []


def test_a_worker_that_is_no_id_is_refused(user: User) -> None:
    """A worker's id must be one, and there are at most 20."""
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        user.channel.jobs.ListJobs(pb.ListJobsRequest(filter=pb.JobFilter(worker_ids=["x"])))
    with refused("INVALID_ARGUMENT", "", "filter.worker_ids"):
        ids = [new_id() for _ in range(21)]
        user.channel.jobs.ListJobs(pb.ListJobsRequest(filter=pb.JobFilter(worker_ids=ids)))
