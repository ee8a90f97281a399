"""Leases: who may report, heartbeats, checkpoints, release and expiry."""

from __future__ import annotations

import time
from typing import Any

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from morag_meta.conformance.waits import becomes, lasting, missing_id
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import workers_pb2 as pb

AREA = Area("leases")


def _leased(bench: Bench, **fields: Any) -> pb.Lease:
    """Make a job and lease it."""
    bench.add_job(**fields.pop("job", {}))
    (lease,) = bench.lease(bench.add_worker().id, **fields)
    return lease


def _beat(bench: Bench, lease: pb.Lease, **fields: Any) -> pb.HeartbeatJobResponse:
    given: dict[str, Any] = {"job_id": lease.job.id, "lease_token": lease.token} | fields
    return bench.mine.workers.HeartbeatJob(pb.HeartbeatJobRequest(**given))


def _release(bench: Bench, lease: pb.Lease, **fields: Any) -> jobs_pb2.Job:
    given: dict[str, Any] = {"job_id": lease.job.id, "lease_token": lease.token} | fields
    return bench.mine.workers.ReleaseJob(pb.ReleaseJobRequest(**given))


@AREA.case
def only_the_holder_reports(bench: Bench) -> None:
    """A report on a worker's lease needs its token: without one, or with another, it is refused."""
    lease = _leased(bench)
    for fields in ({}, {"lease_token": missing_id()}):
        with refused("FAILED_PRECONDITION", "LEASE_LOST", attempt="1", current_attempt="1"):
            bench.progress(lease.job, 1, 10, **fields)
    after = bench.progress(lease.job, 1, 10, lease_token=lease.token)
    same("outcome", after.outcome, jobs_pb2.REPORT_OUTCOME_APPLIED)


@AREA.case
def a_token_is_shown_to_its_holder_only(bench: Bench) -> None:
    """The token stands in the lease alone: not in GetJob, ListJobs or an answer to a report."""
    lease = _leased(bench)
    jobs = bench.mine.jobs.ListJobs(jobs_pb2.ListJobsRequest(filter=jobs_pb2.JobFilter(kinds=[bench.kind])))
    answers = (bench.job(lease.job.id), jobs, bench.progress(lease.job, 1, lease_token=lease.token))
    holds("a token", fact=bool(lease.token), seen="none")
    held = [lease.token.encode() in answer.SerializeToString() for answer in answers]
    same("whether an answer holds it", held, [False] * 3)


@AREA.case
def a_heartbeat_renews(bench: Bench) -> None:
    """A heartbeat answers GO_ON and a later end, and is no change: no event, the same etag."""
    lease = _leased(bench)
    time.sleep(0.05)
    answer = _beat(bench, lease)
    same("verdict", answer.verdict, pb.HEARTBEAT_VERDICT_GO_ON)
    ends = lease.expire_time.ToNanoseconds(), answer.expire_time.ToNanoseconds()
    holds("a later end", fact=ends[0] < ends[1], seen="no later one")
    job = bench.job(lease.job.id)
    same("etag and last_sequence", (job.etag, job.last_sequence), (lease.job.etag, lease.job.last_sequence))


@AREA.case
def a_report_renews(bench: Bench) -> None:
    """A progress report renews the lease too."""
    lease = _leased(bench)
    time.sleep(0.05)
    job = bench.progress(lease.job, 1, 10, lease_token=lease.token).job
    ends = lease.expire_time.ToNanoseconds(), job.lease_expire_time.ToNanoseconds()
    holds("a later end", fact=ends[0] < ends[1], seen="no later one")


@AREA.case
def a_heartbeat_tells_of_cancellation(bench: Bench) -> None:
    """The heartbeat for a cancelled job says CANCEL, and for a token that is not the lease's LOST."""
    lease = _leased(bench)
    same(
        "verdict by another token",
        _beat(bench, lease, lease_token=missing_id()).verdict,
        pb.HEARTBEAT_VERDICT_LOST,
    )
    bench.cancel(lease.job.id)
    answer = _beat(bench, lease)
    same("verdict", answer.verdict, pb.HEARTBEAT_VERDICT_CANCEL)
    same("whether it has an end", answer.HasField("expire_time"), False)


@AREA.case
def a_finished_job_is_lost(bench: Bench) -> None:
    """The heartbeat for a job that its worker has finished says LOST."""
    lease = _leased(bench)
    bench.complete(lease.job, 1, lease_token=lease.token)
    same("verdict", _beat(bench, lease).verdict, pb.HEARTBEAT_VERDICT_LOST)


@AREA.case
def a_missing_job_has_no_heartbeat(bench: Bench) -> None:
    """The heartbeat for a job that does not exist is NOT_FOUND."""
    request = pb.HeartbeatJobRequest(job_id=missing_id(), lease_token=missing_id())
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="job"):
        bench.mine.workers.HeartbeatJob(request)


@AREA.case
def a_released_job_is_had_at_once(bench: Bench) -> None:
    """A released job is PENDING without a worker, and is leased again at once in the next attempt."""
    lease = _leased(bench)
    job = _release(bench, lease, reason="closing time")
    seen = (job.state, job.worker_id, job.summary, job.lost_leases, job.HasField("lease_expire_time"))
    wanted = (jobs_pb2.JOB_STATE_PENDING, "", "closing time", 0, False)
    same("state, worker, summary, lost leases, whether it has a lease", seen, wanted)
    (again,) = bench.lease(bench.add_worker().id)
    same("job and attempt", (again.job.id, again.job.attempt), (job.id, 2))
    holds("another token", fact=again.token != lease.token, seen="the same")


@AREA.case
def the_former_holder_is_refused(bench: Bench) -> None:
    """After a release the former holder's reports are FAILED_PRECONDITION, and a second release too."""
    lease = _leased(bench)
    _release(bench, lease)
    with refused("FAILED_PRECONDITION", "LEASE_LOST"):
        _release(bench, lease)
    (again,) = bench.lease(bench.add_worker().id)
    with refused("FAILED_PRECONDITION", "STALE_ATTEMPT", attempt="1", current_attempt="2"):
        bench.complete(lease.job, 1, lease_token=lease.token)
    with refused("FAILED_PRECONDITION", "LEASE_LOST"):
        bench.complete(again.job, 1, lease_token=lease.token)
    same("verdict for the former holder", _beat(bench, lease).verdict, pb.HEARTBEAT_VERDICT_LOST)


@AREA.case
def a_repeated_release_is_success(bench: Bench) -> None:
    """A release repeated under its request id answers the job as it is now."""
    lease, request_id = _leased(bench), bench.name()
    first = _release(bench, lease, request_id=request_id)
    same("the second answer", _release(bench, lease, request_id=request_id), first)


@AREA.case
def a_release_of_what_has_ended_is_refused(bench: Bench) -> None:
    """The release of a job that has ended is FAILED_PRECONDITION."""
    lease = _leased(bench)
    bench.complete(lease.job, 1, lease_token=lease.token)
    with refused("FAILED_PRECONDITION", "JOB_ENDED", state="FINISHED"):
        _release(bench, lease)


@AREA.case
def a_checkpoint_reaches_the_next_attempt(bench: Bench) -> None:
    """What a heartbeat saves comes with the next attempt's lease; a heartbeat without one keeps it."""
    lease = _leased(bench)
    same("checkpoint of the first attempt", lease.checkpoint, b"")
    saved = bytes(range(256))
    _beat(bench, lease, checkpoint=saved)
    _beat(bench, lease)
    _release(bench, lease)
    (again,) = bench.lease(bench.add_worker().id)
    same("checkpoint of the second attempt", again.checkpoint, saved)
    _beat(bench, again, checkpoint=b"")
    _release(bench, again)
    (third,) = bench.lease(bench.add_worker().id)
    same("checkpoint after it was removed", third.checkpoint, b"")


@AREA.case
def a_checkpoint_is_limited(bench: Bench) -> None:
    """A checkpoint of 32,768 bytes is kept, and one more is INVALID_ARGUMENT."""
    lease = _leased(bench)
    _beat(bench, lease, checkpoint=b"x" * 32_768)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "checkpoint"):
        _beat(bench, lease, checkpoint=b"x" * 32_769)


@AREA.case
def an_expired_lease_is_refused(bench: Bench) -> None:
    """A lease that nobody renews is refused after its end, and its job goes back with a pause."""
    lease = _leased(bench, lease_duration=lasting(1))
    same("duration", lease.duration, lasting(1))
    time.sleep(1.2)
    same("verdict", _beat(bench, lease).verdict, pb.HEARTBEAT_VERDICT_LOST)
    with refused("FAILED_PRECONDITION", "LEASE_LOST"):
        bench.progress(lease.job, 1, 10, lease_token=lease.token)
    becomes("a PENDING job", lambda: bench.job(lease.job.id).state == jobs_pb2.JOB_STATE_PENDING)
    job = bench.job(lease.job.id)
    same("lost leases, worker", (job.lost_leases, job.worker_id), (1, ""))


@AREA.case
def the_last_lost_lease_fails_the_job(bench: Bench) -> None:
    """A job whose max_attempts leases expired is FAILED, with LEASE_EXPIRED as its reason."""
    lease = _leased(bench, job={"max_attempts": 1}, lease_duration=lasting(1))
    becomes("a FAILED job", lambda: bench.job(lease.job.id).state == jobs_pb2.JOB_STATE_FAILED)
    job = bench.job(lease.job.id)
    same("failure", job.failure, jobs_pb2.JOB_FAILURE_LEASE_EXPIRED)
    holds("an error for people", fact=bool(job.error), seen="none")


@AREA.case
def heartbeats_keep_a_lease(bench: Bench) -> None:
    """A lease of 4 s that is renewed lives for longer than that."""
    lease = _leased(bench, lease_duration=lasting(4))
    for _ in range(10):
        time.sleep(0.5)
        same("verdict", _beat(bench, lease).verdict, pb.HEARTBEAT_VERDICT_GO_ON)
    job = bench.complete(lease.job, 1, lease_token=lease.token).job
    same("state and lost leases", (job.state, job.lost_leases), (jobs_pb2.JOB_STATE_FINISHED, 0))


@AREA.case
def a_start_is_a_lease_too(bench: Bench) -> None:
    """StartJob leases a named job: its token beats and releases, and no worker is given the job."""
    job = bench.running()
    same("jobs for a worker", bench.lease(bench.add_worker().id), [])
    lease = pb.Lease(job=job, token=job.lease_token)
    same("verdict", _beat(bench, lease).verdict, pb.HEARTBEAT_VERDICT_GO_ON)
    same("state", _release(bench, lease).state, jobs_pb2.JOB_STATE_PENDING)
