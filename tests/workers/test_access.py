"""Whose jobs a worker gets, and what a key that may only work can see and do besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from morag_meta.auth.principal import Role
from morag_meta.ids import new_id
from moragmeta.v1 import documents_pb2, jobs_pb2
from moragmeta.v1 import workers_pb2 as pb
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.service import Channel, Service
from tests.workers.fleet import Fleet, ids, key_with, shown


def test_a_worker_is_not_given_jobs_of_others(service: Service, work: Work) -> None:
    """A key with jobs:work, and a USER's key of every scope, serve their owner's jobs alone."""
    kind = f"K{new_id()}"
    work.add_job(kind=kind)
    other = service.new_user()
    for channel in (other.channel, key_with(service, other, "jobs:work")):
        fleet = Fleet(channel)
        worker = fleet.register()
        assert not worker.serves_everyone
        assert fleet.lease(worker.id, 10, kinds=[kind]) == []


def test_everybodys_worker_gets_the_jobs_of_all(service: Service) -> None:
    """A key with jobs:work:all, whosever it is, serves every owner's jobs, and reports on them."""
    kind = f"K{new_id()}"
    works = [Work(service.new_user()) for _ in range(3)]
    made = {work.add_job(kind=kind).id for work in works}
    fleet = Fleet(key_with(service, service.admin, "jobs:work:all", owner_id=works[0].user.id))
    worker = fleet.register()
    assert worker.serves_everyone
    leases = fleet.lease(worker.id, 10, kinds=[kind])
    assert set(ids(leases)) == made
    first, second, third = leases
    assert fleet.beat(first).verdict == pb.HEARTBEAT_VERDICT_GO_ON
    assert fleet.complete(first).job.state == jobs_pb2.JOB_STATE_FINISHED
    assert fleet.release(second).state == jobs_pb2.JOB_STATE_PENDING
    failing = jobs_pb2.FailJobRequest(error="x", **shown(third))
    assert fleet.channel.jobs.FailJob(failing).job.state == jobs_pb2.JOB_STATE_FAILED


def test_everybodys_worker_with_a_lesser_key_serves_its_owner_alone(service: Service, work: Work) -> None:
    """Both count: for what the worker registered, and what the key that leases now allows."""
    kind = f"K{new_id()}"
    owner = service.new_user()
    everybody = Fleet(key_with(service, service.admin, "jobs:work:all", owner_id=owner.id))
    own = Fleet(key_with(service, owner, "jobs:work"))
    served, registered_small = everybody.register(), own.register()
    job = work.add_job(kind=kind)
    assert own.lease(served.id, kinds=[kind]) == []
    assert everybody.lease(registered_small.id, kinds=[kind]) == []
    assert ids(everybody.lease(served.id, kinds=[kind])) == [job.id]


def test_a_worker_is_its_owners(service: Service, fleet: Fleet) -> None:
    """Nobody else leases in a worker's name, not even an ADMIN; and only an ADMIN sees it."""
    worker = fleet.register()
    other = Fleet(service.new_user().channel)
    for stranger in (other, Fleet(service.admin.channel)):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
            stranger.lease(worker.id)
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        other.stub.GetWorker(pb.GetWorkerRequest(id=worker.id))
    assert service.admin.channel.workers.GetWorker(pb.GetWorkerRequest(id=worker.id)).id == worker.id
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        other.lease(new_id())


def _looks(channel: Channel, job_id: str, document_id: str) -> list[Callable[[], Any]]:
    """Give calls by which a job or its document could be seen or changed past a lease."""
    return [
        lambda: channel.jobs.GetJob(jobs_pb2.GetJobRequest(id=job_id)),
        lambda: channel.jobs.ListJobs(jobs_pb2.ListJobsRequest()),
        lambda: channel.jobs.ListJobEvents(jobs_pb2.ListJobEventsRequest(job_id=job_id)),
        lambda: channel.jobs.GetJobStats(jobs_pb2.GetJobStatsRequest()),
        lambda: channel.jobs.StartJob(jobs_pb2.StartJobRequest(id=job_id)),
        lambda: channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job_id)),
        lambda: channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="A"))),
        lambda: list(channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job_id))),
        lambda: channel.documents.GetDocument(documents_pb2.GetDocumentRequest(id=document_id)),
    ]


@pytest.mark.parametrize("scope", ["jobs:work", "jobs:work:all"])
def test_a_key_that_works_sees_nothing_but_its_leases(service: Service, work: Work, scope: str) -> None:
    """Jobs and documents are neither read nor changed by it but with a lease, also those it has leased."""
    job = work.add_job(document_id=work.add_document())
    channel = key_with(service, service.admin, scope, owner_id=work.user.id)
    for look in _looks(channel, job.id, job.document_id):
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            look()
    fleet = Fleet(channel)
    worker = fleet.register(document_types=["txt"])
    (lease,) = fleet.lease(worker.id, kinds=["INGESTION"]) if scope == "jobs:work" else [pb.Lease(job=job)]
    for look in _looks(channel, lease.job.id, job.document_id):
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            look()


def test_without_its_token_nobody_reports_for_a_worker(service: Service, work: Work) -> None:
    """A key that only works is refused on jobs that it has not leased, and cannot tell what they are."""
    started, waiting = work.add_job(kind="A"), work.add_job(kind="A")
    work.start(started.id)
    fleet = Fleet(key_with(service, service.admin, "jobs:work:all"))
    own = Fleet(key_with(service, work.user, "jobs:work"))
    for worker in (fleet, own):
        for job, token in ((started, new_id()), (waiting, new_id())):
            lease = pb.Lease(job=job, token=token)
            assert worker.beat(lease) == pb.HeartbeatJobResponse(verdict=pb.HEARTBEAT_VERDICT_LOST)
            with refused("FAILED_PRECONDITION", "LEASE_LOST"):
                worker.release(lease)
        request = jobs_pb2.CompleteJobRequest(id=started.id, attempt=1, report_number=1)
        with refused("FAILED_PRECONDITION", "LEASE_LOST"):
            worker.channel.jobs.CompleteJob(request)
    stranger = Fleet(key_with(service, service.new_user(), "jobs:work"))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        stranger.beat(pb.Lease(job=started, token=new_id()))


def test_a_key_that_writes_and_works_for_everybody_reports_on_both(service: Service, work: Work) -> None:
    """With both scopes a USER's key reports on leases of others' jobs, and without token on its own."""
    kind = f"K{new_id()}"
    owner = service.new_user()
    fleet = Fleet(key_with(service, service.admin, "jobs:write", "jobs:work:all", owner_id=owner.id))
    work.add_job(kind=kind)
    (lease,) = fleet.lease(fleet.register(kinds=[kind]).id)
    assert fleet.complete(lease).job.owner_id == work.user.id
    own = Work(owner).add_job(kind="A")
    fleet.channel.jobs.StartJob(jobs_pb2.StartJobRequest(id=own.id))
    request = jobs_pb2.CompleteJobRequest(id=own.id, attempt=1, report_number=1)
    assert fleet.channel.jobs.CompleteJob(request).job.state == jobs_pb2.JOB_STATE_FINISHED


def test_workers_are_listed_newest_first_with_their_leases(
    service: Service, work: Work, fleet: Fleet
) -> None:
    """A list shows one owner's workers page by page, each with the number of its living leases."""
    workers = [fleet.register(f"w{number}", kinds=["A", "B", "A"]) for number in range(3)]
    for _ in range(3):
        work.add_job(kind="A")
    fleet.lease(workers[1].id, 2)
    first = fleet.stub.ListWorkers(pb.ListWorkersRequest(page_size=2))
    rest = fleet.stub.ListWorkers(pb.ListWorkersRequest(page_size=2, page_token=first.next_page_token))
    listed = [*first.workers, *rest.workers]
    assert [worker.name for worker in listed] == ["w2", "w1", "w0"]
    assert [worker.leased_jobs for worker in listed] == [0, 2, 0]
    assert [list(worker.kinds) for worker in listed] == [["A", "B"]] * 3
    assert fleet.stub.GetWorker(pb.GetWorkerRequest(id=workers[1].id)) == listed[1]
    everyone = service.admin.channel.workers.ListWorkers(pb.ListWorkersRequest(owner_id="-", page_size=3))
    assert [worker.id for worker in everyone.workers] == [worker.id for worker in listed]


def test_only_a_reading_admin_lists_workers_of_others(service: Service, work: Work, fleet: Fleet) -> None:
    """Others' workers are not for a USER, and not for an ADMIN's key that may only work."""
    worker = fleet.register()
    admins = key_with(service, service.admin, "jobs:work:all")
    for channel in (service.new_user().channel, admins):
        for owner_id in ("-", work.user.id):
            with refused("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"):
                channel.workers.ListWorkers(pb.ListWorkersRequest(owner_id=owner_id))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        admins.workers.GetWorker(pb.GetWorkerRequest(id=worker.id))
    reading = key_with(service, service.admin, "jobs:read")
    shown = reading.workers.ListWorkers(pb.ListWorkersRequest(owner_id=work.user.id)).workers
    assert [one.id for one in shown] == [worker.id]


def test_a_viewer_registers_no_worker(service: Service) -> None:
    """Workers change jobs, so that a VIEWER may see them but not be one."""
    channel = service.new_user(Role.VIEWER).channel
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        Fleet(channel).register()
    assert list(channel.workers.ListWorkers(pb.ListWorkersRequest()).workers) == []
