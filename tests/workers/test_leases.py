"""Leases over the wire: what a worker is given, and what its token is good for."""

from __future__ import annotations

import threading
import time

from moragmeta.v1 import documents_pb2, jobs_pb2
from moragmeta.v1 import workers_pb2 as pb
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.workers.fleet import Fleet, ids


def test_a_worker_is_leased_a_job_with_its_document(work: Work, fleet: Fleet) -> None:
    """A lease shows the job as it runs, its token and end, and the document, which is being ingested."""
    job = work.add_job(parameters={"size": 3})
    worker = fleet.register()
    (lease,) = fleet.lease(worker.id, 5)

    assert (lease.job.id, lease.job.state, lease.job.attempt) == (job.id, jobs_pb2.JOB_STATE_PROCESSING, 1)
    assert lease.job.worker_id == worker.id
    assert lease.job.lease_expire_time == lease.expire_time
    assert (len(lease.token), lease.job.lease_token) == (36, "")
    assert lease.duration.ToSeconds() == 90
    assert lease.document == work.document(job.document_id)
    assert lease.document.state == documents_pb2.DOCUMENT_STATE_INGESTING
    assert not lease.HasField("database")
    assert fleet.lease(worker.id, 5) == []
    assert fleet.beat(lease).verdict == pb.HEARTBEAT_VERDICT_GO_ON
    assert fleet.complete(lease).job.state == jobs_pb2.JOB_STATE_FINISHED
    with refused("FAILED_PRECONDITION", "JOB_ENDED"):
        fleet.release(lease)


def test_a_released_job_is_leased_again(work: Work, fleet: Fleet) -> None:
    """What is given back waits at once, with its document as before, and its token is worth nothing."""
    job = work.add_job()
    worker = fleet.register()
    (lease,) = fleet.lease(worker.id)
    released = fleet.release(lease, reason="too large for me")
    assert (released.state, released.lost_leases, released.summary) == (
        jobs_pb2.JOB_STATE_PENDING,
        0,
        "too large for me",
    )
    assert work.document(job.document_id).state == documents_pb2.DOCUMENT_STATE_PENDING
    (again,) = fleet.lease(worker.id)
    assert (again.job.id, again.job.attempt) == (job.id, 2)
    assert fleet.beat(lease).verdict == pb.HEARTBEAT_VERDICT_LOST


def test_a_waiting_worker_gets_a_new_job_at_once(work: Work, fleet: Fleet) -> None:
    """A worker that waits is answered when a job is made, long before its wait is over."""
    worker = fleet.register()
    got: list[pb.Lease] = []
    waiting = threading.Thread(target=lambda: got.extend(fleet.lease(worker.id, wait=20)))
    waiting.start()
    time.sleep(0.3)
    job = work.add_job(kind="REINDEX")
    waiting.join(5)
    assert ids(got) == [job.id]
