"""What a worker is told of a lease that is over, where its stream does not tell it first."""

from __future__ import annotations

import threading
import time

import pytest

from morag_client import JobCancelled, JobStopped, LeaseLost, Task
from morag_client.holds import Hold
from morag_client.reports import Reports
from tests.client.conftest import Owner, until
from tests.client.test_own_jobs import Hand
from tests.client.test_worker import working
from tests.service import Service, User


def test_heartbeat_says_that_the_job_is_gone(owner: Owner, service: Service, user: User) -> None:
    """A job that was removed while its handler is silent stops the work, long before its lease expires."""
    owner.job()
    started, told = threading.Event(), list[str]()

    def handle(task: Task) -> None:
        started.set()
        try:
            task.rest(60.0)
        except LeaseLost as lost:
            told.append(str(lost))
            raise

    with working(owner, handle, lease_duration=9.0):
        assert started.wait(20)
        with service.database.unit_of_work() as uow:
            assert uow.jobs.delete_all(user.id) == 1
            uow.commit()
        removed = time.monotonic()
        until(lambda: told)
        assert time.monotonic() - removed < 8.0  # a heartbeat is sent after 3 s
    assert told[0].startswith("NOT_FOUND (RESOURCE_NOT_FOUND)")


@pytest.mark.parametrize("why", [JobCancelled, LeaseLost])
def test_saving_a_checkpoint_tells_that_the_lease_is_over(owner: Owner, why: type[JobStopped]) -> None:
    """Whoever hears nothing else is told by the answer, and nothing was saved."""
    owner.job()
    hand = Hand(owner)
    lease = hand.lease()
    reports = Reports(owner.channel, Hold(lease))
    reports.save(b"page 1")
    if why is JobCancelled:
        owner.cancel(lease.job)
    else:
        hand.release(lease)
    with pytest.raises(why):
        reports.save(b"page 2")
    if why is LeaseLost:
        assert hand.lease().checkpoint == b"page 1"
