"""What a new job may say of when and how long it runs, up to the edges, and that a repeat keeps it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from moragmeta.v1 import jobs_pb2 as pb
from tests.jobs.conftest import Work
from tests.refusals import refused

DAY = 86_400
_LIMITS = {"schedule_to_start": 30 * DAY, "start_to_close": 7 * DAY, "schedule_to_close": 30 * DAY}


def _in(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds))
    return time


@pytest.mark.parametrize("name", _LIMITS)
def test_deadlines_are_within_their_range(work: Work, name: str) -> None:
    """The least and the most are taken as they are, and a nanosecond beyond either is refused by its name."""
    most = _LIMITS[name]
    for seconds in (1, most):
        deadlines = pb.JobDeadlines(**{name: Duration(seconds=seconds)})
        assert getattr(work.add_job(kind="X", deadlines=deadlines).deadlines, name).seconds == seconds
    for wrong in (Duration(), Duration(nanos=999_999_999), Duration(seconds=most, nanos=1_000_000)):
        with refused("INVALID_ARGUMENT", "", f"job.deadlines.{name}"):
            work.add_job(kind="X", deadlines=pb.JobDeadlines(**{name: wrong}))


def test_the_fallback_is_within_its_range(work: Work) -> None:
    """A REMOTE job waits 1 s to 7 days for a remote worker."""
    for seconds in (1, 7 * DAY):
        job = work.add_job(
            kind="X", execution=pb.JOB_EXECUTION_REMOTE, fallback_delay=Duration(seconds=seconds)
        )
        assert job.fallback_delay.seconds == seconds
    for wrong in (Duration(), Duration(seconds=-1), Duration(seconds=7 * DAY + 1)):
        with refused("INVALID_ARGUMENT", "", "job.fallback_delay"):
            work.add_job(kind="X", fallback_delay=wrong)


def test_attempts_and_the_begin_are_within_their_ranges(work: Work) -> None:
    """At most 100 leases may expire, none said means 3; a job begins at most 365 days ahead."""
    assert [work.add_job(kind="X", max_attempts=count).max_attempts for count in (0, 1, 100)] == [3, 1, 100]
    for count in (-1, 101):
        with refused("INVALID_ARGUMENT", "", "job.max_attempts"):
            work.add_job(kind="X", max_attempts=count)
    late = _in(365 * DAY - 60)
    assert work.add_job(kind="X", not_before=late).not_before.seconds == late.seconds
    work.add_job(kind="X", not_before=_in(-DAY))
    with refused("INVALID_ARGUMENT", "", "job.not_before"):
        work.add_job(kind="X", not_before=_in(365 * DAY + 60))


def test_a_repeat_keeps_the_plan(work: Work) -> None:
    """RetryJob makes a job of the same deadlines, attempts and fallback, which may begin at once."""
    plan: dict[str, Any] = {
        "deadlines": pb.JobDeadlines(
            schedule_to_start=Duration(seconds=11),
            start_to_close=Duration(seconds=12),
            schedule_to_close=Duration(seconds=5000),
        ),
        "max_attempts": 7,
        "fallback_delay": Duration(seconds=14),
        "execution": pb.JOB_EXECUTION_REMOTE,
        "priority": pb.JOB_PRIORITY_URGENT,
    }
    job = work.add_job(kind="X", not_before=_in(3600), **plan)
    work.cancel(job.id)
    again = work.jobs.RetryJob(pb.RetryJobRequest(id=job.id))

    assert {name: getattr(again, name) for name in plan} == plan
    assert not again.HasField("not_before")
    assert again.state == pb.JOB_STATE_WAITING_FOR_REMOTE_WORKER
