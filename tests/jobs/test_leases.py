"""The lease of a job over a real server: its token, renewal, end before anybody looks, and repeat."""

from __future__ import annotations

import time
import uuid

import pytest

from morag_meta.errors import MetaError, Reason
from morag_meta.jobs import actions, leases
from morag_meta.jobs.rules import Holder
from moragmeta.v1 import jobs_pb2 as pb
from tests.jobs.conftest import Work
from tests.jobs.later import events_of, let_pass, row_of
from tests.refusals import refused
from tests.service import Service


def test_starting_a_job_gives_a_lease(work: Work) -> None:
    """StartJob answers a token of 36 characters, which nothing else shows, and the end of the lease."""
    job = work.add_job(kind="X")
    started = work.start(job.id)
    seconds = started.lease_expire_time.ToNanoseconds() - started.start_time.ToNanoseconds()

    assert (len(started.lease_token), started.worker_id) == (36, "")
    assert seconds == 90 * 10**9
    shown = work.job(job.id)
    assert shown.lease_token == ""
    assert shown.lease_expire_time == started.lease_expire_time
    assert started.lease_token not in str(work.events(work.cancel(job.id).id))


def test_a_lease_is_as_long_as_was_asked(work: Work) -> None:
    """``lease_duration`` sets how long the lease lives after each renewal, from 1 s to 1 h."""
    job = work.add_job(kind="X")
    started = work.start(job.id, lease_duration={"seconds": 7})
    reported = work.progress(job.id, 1).job

    for shown, since in ((started, started.start_time), (reported, reported.update_time)):
        assert shown.lease_expire_time.ToNanoseconds() - since.ToNanoseconds() == 7 * 10**9
    for wrong in ({"nanos": 1}, {"seconds": 3601}):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", "lease_duration"):
            work.start(job.id, lease_duration=wrong)


@pytest.mark.parametrize("shown", [True, False])
def test_reports_renew_the_lease(work: Work, service: Service, shown: bool) -> None:
    """Each report lets the lease live on from then, with the token or, after StartJob, without."""
    job = work.add_job(kind="X")
    given = work.start(job.id).lease_token
    token = given if shown else ""
    for number in (1, 2, 3):
        let_pass(service.database, job.id, seconds=60)
        answered = work.progress(job.id, number, lease_token=token)
        assert answered.outcome == pb.REPORT_OUTCOME_APPLIED
    let_pass(service.database, job.id, seconds=60)

    assert work.complete(job.id, 4, lease_token=token).job.state == pb.JOB_STATE_FINISHED
    assert work.job(job.id).attempt == 1


def test_an_expired_lease_takes_no_report_though_nobody_has_looked(work: Work, service: Service) -> None:
    """From its expiry on a lease is lost, whether or not the job was put back to wait already."""
    job = work.add_job(kind="X")
    token = work.start(job.id).lease_token
    let_pass(service.database, job.id, seconds=90)
    with service.database.unit_of_work() as uow:
        row = uow.jobs.lock("-", job.id)
        report = actions.Report(1, 1, holder=Holder(token))
        if row["state"] == "PROCESSING":  # the service's reaper has not come yet
            for wrong in (
                lambda: actions.report_progress(uow, "-", job.id, report, percentage=1, phase=""),
                lambda: actions.complete_job(uow, "-", job.id, report, chunks=1, quality=1, metadata={}),
                lambda: actions.fail_job(uow, "-", job.id, report, error="x"),
                lambda: leases.release(uow, row, Holder(token)),
            ):
                with pytest.raises(MetaError) as lost:
                    wrong()
                assert lost.value.reason is Reason.LEASE_LOST
    with refused("FAILED_PRECONDITION", "LEASE_LOST"):
        work.progress(job.id, 1, lease_token=token)


def test_another_token_is_no_lease(work: Work) -> None:
    """A report with the token of another lease is refused, and changes nothing."""
    job = work.add_job(kind="X")
    started = work.start(job.id)
    for token in (str(uuid.uuid4()), started.lease_token.upper(), "x"):
        with refused("FAILED_PRECONDITION", "LEASE_LOST"):
            work.complete(job.id, 1, lease_token=token)

    assert work.job(job.id).etag == started.etag


def test_a_repeated_start_gives_the_token_of_its_own_lease_alone(work: Work, service: Service) -> None:
    """A repeat answers the lease of the first call while it lives, and never the token of a later one."""
    job = work.add_job(kind="X")
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    token = work.start(job.id, request_id=first).lease_token
    assert work.start(job.id, request_id=first).lease_token == token
    with service.database.unit_of_work() as uow:
        leases.release(uow, uow.jobs.lock("-", job.id), Holder(token))
        uow.commit()
    assert work.start(job.id, request_id=first).lease_token == ""
    later = work.start(job.id, request_id=second)

    assert later.lease_token not in ("", token)
    assert (later.attempt, work.start(job.id, request_id=first).lease_token) == (2, "")


def test_the_service_reaps_by_itself(work: Work, service: Service) -> None:
    """The job of a worker that is gone waits again soon after its lease's end, and says why."""
    job_id = work.add_job().id
    work.start(job_id, lease_duration={"seconds": 1})
    end = time.monotonic() + 20
    while work.job(job_id).state == pb.JOB_STATE_PROCESSING:
        assert time.monotonic() < end
        time.sleep(0.1)

    job = work.job(job_id)
    assert (job.state, job.lost_leases, job.attempt) == (pb.JOB_STATE_PENDING, 1, 1)
    assert job.summary.startswith("the lease of attempt 1 expired (1 of 3)")
    assert not job.HasField("lease_expire_time")
    assert [event["number"] for event in events_of(service.database, job_id)] == [1, 2, 3]
    assert row_of(service.database, job_id)["lease_token"] is None
    with refused("FAILED_PRECONDITION", "LEASE_LOST"):
        work.progress(job_id, 1)


def test_a_new_job_says_how_long_it_may_take(work: Work) -> None:
    """A job shows its limits: what was asked for, else the defaults of its document's type."""
    plain = work.add_job()  # of a txt
    limits = plain.deadlines
    assert [each.seconds for each in (limits.schedule_to_start, limits.start_to_close)] == [86_400, 900]
    assert (limits.schedule_to_close.seconds, plain.max_attempts) == (604_800, 3)
    assert not plain.HasField("fallback_delay")
    asked = {"schedule_to_start": {"seconds": 5}, "schedule_to_close": {"seconds": 50, "nanos": 500_000_000}}
    job = work.add_job(kind="X", deadlines=asked, max_attempts=7, execution=pb.JOB_EXECUTION_REMOTE)
    assert job.deadlines.schedule_to_start.seconds == 5
    assert job.deadlines.start_to_close.seconds == 1800
    assert job.deadlines.schedule_to_close.ToMilliseconds() == 50_500
    assert (job.max_attempts, job.fallback_delay.seconds) == (7, 300)
    again = work.jobs.RetryJob(pb.RetryJobRequest(id=work.cancel(job.id).id))
    assert (again.deadlines, again.max_attempts, again.fallback_delay) == (
        job.deadlines,
        job.max_attempts,
        job.fallback_delay,
    )


def test_a_job_may_wait_for_a_year_at_most(work: Work) -> None:
    """``not_before`` is at most 365 days from now, by the database's clock."""
    now = int(time.time())
    assert work.add_job(kind="X", not_before={"seconds": now + 364 * 86_400}).HasField("not_before")
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "job.not_before"):
        work.add_job(kind="X", not_before={"seconds": now + 366 * 86_400})
