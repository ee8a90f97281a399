"""How a worker hears of the ends of its leases, also of those that it has not quite got yet."""

from __future__ import annotations

import threading

import pytest

from morag_client import JobCancelled, LeaseLost
from morag_client.holds import Hold
from morag_client.own_jobs import OwnJobs
from moragmeta.v1 import jobs_pb2, workers_pb2
from moragmeta.v1.workers_pb2_grpc import WorkerServiceStub
from tests.client.conftest import Owner, until


class Hand:
    """A worker without a loop, which leases when it is told to."""

    def __init__(self, owner: Owner) -> None:
        self._stub = WorkerServiceStub(owner.channel)
        request = workers_pb2.RegisterWorkerRequest(worker=workers_pb2.Worker(name="hand"))
        self.worker = self._stub.RegisterWorker(request)

    def lease(self) -> workers_pb2.Lease:
        """Lease the one job that there is."""
        (lease,) = self._stub.LeaseJobs(workers_pb2.LeaseJobsRequest(worker_id=self.worker.id)).leases
        return lease

    def release(self, lease: workers_pb2.Lease) -> None:
        """Give it back."""
        request = workers_pb2.ReleaseJobRequest(job_id=lease.job.id, lease_token=lease.token)
        self._stub.ReleaseJob(request)


@pytest.fixture
def hand(owner: Owner) -> Hand:
    """Give a worker of the user."""
    return Hand(owner)


def test_end_that_is_heard_before_its_lease_is_remembered(owner: Owner, hand: Hand) -> None:
    """A job that is cancelled while its lease is on its way is cancelled when the lease arrives."""
    owner.job()
    lease = hand.lease()
    owner.cancel(lease.job)
    own_jobs = OwnJobs(owner.channel)
    own_jobs.follow(hand.worker)
    until(lambda: own_jobs._early)  # noqa: SLF001 - nothing else shows it
    hold = Hold(lease)
    own_jobs.add(hold)
    own_jobs.close()
    assert hold.why is JobCancelled


def test_later_attempt_ends_an_earlier_one(owner: Owner, hand: Hand) -> None:
    """Who still holds attempt 1 when attempt 2 has begun is told, and attempt 2 is not disturbed."""
    owner.job()
    own_jobs = OwnJobs(owner.channel)
    first = Hold(hand.lease())
    hand.release(workers_pb2.Lease(job=first.job, token=first.token))
    second = Hold(hand.lease())
    own_jobs.add(first)
    own_jobs.add(second)
    own_jobs.follow(hand.worker)
    until(lambda: first.why)
    own_jobs.close()
    assert (first.why, second.why) == (LeaseLost, None)


def test_listening_ends_with_its_channel(owner: Owner, hand: Hand) -> None:
    """A channel that is closed ends the thread in peace."""
    other = Owner(owner.target, owner.key)
    before = set(threading.enumerate())
    own_jobs = OwnJobs(other.channel)
    own_jobs.follow(hand.worker)
    (thread,) = (new for new in set(threading.enumerate()) - before if new.name == "own jobs")
    until(lambda: own_jobs._watch is not None and own_jobs._watch.resume_token)  # noqa: SLF001
    other.channel.close()
    thread.join(30)
    assert not thread.is_alive()


def test_only_its_own_ends_are_no_news(owner: Owner, hand: Hand) -> None:
    """The end that a worker reported itself stops nothing; one by a deadline stops the work."""
    owner.job()
    hold, own_jobs = Hold(hand.lease()), OwnJobs(owner.channel)
    own_jobs.add(hold)
    event = jobs_pb2.JobEvent(job_id=hold.job.id, attempt=1, state=jobs_pb2.JOB_STATE_FAILED)
    for failure, why in (
        (jobs_pb2.JOB_FAILURE_REPORTED, None),
        (jobs_pb2.JOB_FAILURE_ATTEMPT_TOO_LONG, LeaseLost),
    ):
        event.failure = failure
        own_jobs._hear(jobs_pb2.JobFrame(event=event), hand.worker.id)  # noqa: SLF001 - it takes long to come
        assert hold.why is why
