"""GetJobStats: figures that agree with the jobs, on every database alike."""

from __future__ import annotations

import datetime as dt
import math
import random
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from moragmeta.v1 import jobs_pb2 as pb
from tests.jobs.written import write_jobs
from tests.refusals import refused
from tests.service import Service, User

DAY = dt.timedelta(days=1)


def _stats(user: User, **fields: Any) -> pb.JobStats:
    answer: pb.JobStats = user.channel.jobs.GetJobStats(pb.GetJobStatsRequest(**fields))
    return answer


def _write(service: Service, owner_id: str, *given: dict[str, Any]) -> None:
    with service.database.unit_of_work() as uow:
        write_jobs(uow, owner_id, given, first=None)
        uow.commit()


def _now(service: Service) -> dt.datetime:
    with service.database.unit_of_work() as uow:
        return uow.queue.now()


def _pairs(counts: Any) -> list[tuple[str, int]]:
    return [(count.key, count.count) for count in counts]


def test_counts_by_state_kind_type_and_day(service: Service, user: User) -> None:
    """Each job of the window counts once in each of the four lists, and in the total."""
    now = _now(service)
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0) - 3 * DAY
    _write(
        service,
        user.id,
        {"kind": "B", "document_type": "pdf", "create_time": noon},
        {"kind": "B", "document_type": "pdf", "state": "FAILED", "create_time": noon},
        {"kind": "A", "document_type": "txt", "state": "PENDING", "create_time": noon - DAY},
        {"kind": "a", "state": "PENDING", "create_time": noon - DAY},
        {"kind": "C", "state": "PROCESSING", "create_time": noon},
        {"kind": "old", "create_time": now - 31 * DAY},
    )

    stats = _stats(user)

    assert stats.total == 5
    assert _pairs(stats.by_state) == [("PENDING", 2), ("PROCESSING", 1), ("FINISHED", 1), ("FAILED", 1)]
    assert _pairs(stats.by_kind) == [("B", 2), ("A", 1), ("C", 1), ("a", 1)]
    assert _pairs(stats.by_document_type) == [("", 2), ("pdf", 2), ("txt", 1)]
    assert _pairs(stats.by_day) == [(f"{noon - DAY:%Y-%m-%d}", 2), (f"{noon:%Y-%m-%d}", 3)]


def test_days_are_those_of_utc(service: Service, user: User) -> None:
    """The last microsecond of a day in UTC belongs to it, and the next one to the day after."""
    midnight = (_now(service) - 2 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    late = midnight - dt.timedelta(microseconds=1)
    _write(service, user.id, {"create_time": late}, {"create_time": midnight})

    assert _pairs(_stats(user).by_day) == [(f"{late:%Y-%m-%d}", 1), (f"{midnight:%Y-%m-%d}", 1)]


def test_success_is_told_of_those_that_finished_or_failed(service: Service, user: User) -> None:
    """Open and cancelled jobs count neither for nor against; without any end there is no rate."""
    _write(service, user.id, {"state": "PENDING"}, {"state": "CANCELLED", "run_ms": None})
    assert not _stats(user).HasField("success_rate")

    _write(service, user.id, {}, {}, {}, {"state": "FAILED"})
    assert _stats(user).success_rate == 0.75

    only_failed = pb.JobFilter(states=[pb.JOB_STATE_FAILED])
    assert _stats(user, filter=only_failed).success_rate == 0.0
    assert _stats(user, filter=only_failed).HasField("success_rate")


@pytest.mark.parametrize("count", [1, 2, 3, 19, 20, 21, 100, 101])
def test_durations_are_by_nearest_rank(service: Service, user: User, count: int) -> None:
    """The p-th percentile is the ceil(p·n/100)-th time of FINISHED jobs in order; the mean is exact."""
    times = [random.Random(count + place).randrange(10_000) for place in range(count)]  # noqa: S311 - no secret
    noise: list[dict[str, Any]] = [
        {"state": "FAILED", "run_ms": 10**9},
        {"state": "CANCELLED", "run_ms": None},
    ]
    _write(service, user.id, *({"run_ms": time} for time in times), *noise)

    durations = _stats(user).durations

    ordered = sorted(times)
    for percent, found in ((50, durations.p50), (95, durations.p95), (99, durations.p99)):
        expected = ordered[math.ceil(percent * count / 100) - 1]
        assert found.ToMilliseconds() == expected, percent
    assert durations.mean.ToMicroseconds() == round(sum(times) * 1000 / count)


def test_no_finished_job_is_no_duration(service: Service, user: User) -> None:
    """Where none FINISHED within the window, and where there is no job at all, durations are absent."""
    assert not _stats(user).HasField("durations")
    _write(service, user.id, {"state": "FAILED"}, {"create_time": _now(service) - 40 * DAY})
    stats = _stats(user)
    assert not stats.HasField("durations")
    assert stats.total == 1


def test_the_oldest_open_job_is_found_however_old(service: Service, user: User) -> None:
    """The age is that of the oldest job that has not ended, also from before the window; absent without."""
    assert not _stats(user).HasField("oldest_open_age")
    now = _now(service)
    _write(
        service,
        user.id,
        {"create_time": now - 300 * DAY},
        {"state": "WAITING_FOR_REMOTE_WORKER", "create_time": now - 100 * DAY},
        {"state": "PROCESSING", "create_time": now - 50 * DAY},
        {"state": "PENDING", "create_time": now},
    )

    age = _stats(user).oldest_open_age.ToTimedelta()
    assert 100 * DAY <= age < 100 * DAY + dt.timedelta(minutes=5)
    final = pb.JobFilter(states=[pb.JOB_STATE_FINISHED])
    assert not _stats(user, filter=final).HasField("oldest_open_age")
    running = pb.JobFilter(states=[pb.JOB_STATE_PROCESSING, pb.JOB_STATE_FAILED])
    assert 50 * DAY <= _stats(user, filter=running).oldest_open_age.ToTimedelta() < 51 * DAY


def test_an_open_job_of_the_future_has_no_negative_age(service: Service, user: User) -> None:
    """A job that was made by a clock ahead of the database's is 0 s old."""
    _write(service, user.id, {"state": "PENDING", "create_time": _now(service) + DAY})
    assert _stats(user).oldest_open_age == Duration()


def test_the_window_is_what_was_asked_for(service: Service, user: User) -> None:
    """Only jobs made within the window count, by the database's clock."""
    now = _now(service)
    _write(service, user.id, *({"create_time": now - hours * DAY / 24} for hours in (1, 3, 30)))

    assert _stats(user, window=Duration(seconds=2 * 3600)).total == 1
    assert _stats(user, window=Duration(seconds=4 * 3600)).total == 2
    assert _stats(user, window=Duration(seconds=366 * 86_400)).total == 3


@pytest.mark.parametrize("seconds", [0, -1, 366 * 86_400 + 1])
def test_a_window_out_of_its_range_is_refused(user: User, seconds: int) -> None:
    """A window of less than 1 s or more than 366 days is INVALID_ARGUMENT, and names its field."""
    with refused("INVALID_ARGUMENT", "", "window"):
        _stats(user, window=Duration(seconds=seconds))


def test_the_filter_is_that_of_lists(service: Service, user: User) -> None:
    """Each part of the filter narrows the figures as it narrows ListJobs."""
    worker, database = "0195a000-0000-7000-8000-000000000001", "0195a000-0000-7000-8000-000000000002"
    _write(
        service,
        user.id,
        {"kind": "A", "document_type": "pdf", "worker_id": worker},
        {"kind": "A", "document_type": "txt", "database_id": database},
        {"kind": "B", "document_type": "pdf", "state": "FAILED"},
    )
    filters: list[dict[str, Any]] = [
        {},
        {"kinds": ["A"]},
        {"document_types": ["pdf"]},
        {"states": [pb.JOB_STATE_FAILED, pb.JOB_STATE_PENDING]},
        {"worker_ids": [worker]},
        {"database_id": database},
        {"kinds": ["A"], "document_types": ["pdf"]},
        {"kinds": ["C"]},
    ]
    for fields in filters:
        chosen = pb.JobFilter(**fields)
        listed = user.channel.jobs.ListJobs(pb.ListJobsRequest(filter=chosen)).jobs
        assert _stats(user, filter=chosen).total == len(listed), fields


def test_figures_are_of_the_callers_jobs(service: Service, user: User) -> None:
    """Nobody counts another's jobs but an ADMIN, who names the owner, or everybody."""
    other = service.new_user()
    _write(service, other.id, {"kind": f"of-{other.id}"[:50]})

    assert _stats(user).total == 0
    for owner in (other.id, "-"):
        with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
            _stats(user, filter=pb.JobFilter(owner_id=owner))
        chosen = pb.JobFilter(owner_id=owner, kinds=[f"of-{other.id}"[:50]])
        assert _stats(service.admin, filter=chosen).total == 1


def test_only_the_most_frequent_kinds_are_named(service: Service, user: User) -> None:
    """Of more than 100 kinds the rarest are left out, and still count in the total."""
    given = [{"kind": f"k{number:03}"} for number in range(120)] + [{"kind": "k119"}]
    _write(service, user.id, *given)

    stats = _stats(user)

    assert (len(stats.by_kind), stats.total) == (100, 121)
    assert _pairs(stats.by_kind)[0] == ("k119", 2)
