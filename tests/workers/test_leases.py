"""Leases over the wire: what a worker is given, and what its token is good for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from morag_meta.databases.store import DatabaseStore
from morag_meta.db.schema import job_events, jobs
from morag_meta.ids import new_id
from moragmeta.v1 import databases_pb2, documents_pb2, jobs_pb2, servers_pb2
from moragmeta.v1 import workers_pb2 as pb
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.service import Service
from tests.workers.fleet import Fleet, ids, seconds, shown


def test_a_lease_shows_the_job_and_its_document(work: Work, fleet: Fleet) -> None:
    """A lease shows the job as it runs, its token and end, and the document, which is being ingested."""
    job = work.add_job()
    worker = fleet.register()
    (lease,) = fleet.lease(worker.id, 5)

    assert (lease.job.id, lease.job.state, lease.job.attempt) == (job.id, jobs_pb2.JOB_STATE_PROCESSING, 1)
    assert (lease.job.worker_id, lease.job.lease_token) == (worker.id, "")
    assert lease.expire_time == lease.job.lease_expire_time
    assert lease.expire_time.ToNanoseconds() - lease.job.start_time.ToNanoseconds() == 90 * 10**9
    assert (len(lease.token), lease.duration.ToSeconds(), lease.checkpoint) == (36, 90, b"")
    assert lease.document == work.document(job.document_id)
    assert lease.document.state == documents_pb2.DOCUMENT_STATE_INGESTING
    assert not lease.HasField("database")
    assert fleet.lease(worker.id, 5) == []
    assert fleet.complete(lease).job.state == jobs_pb2.JOB_STATE_FINISHED
    assert work.document(job.document_id).state == documents_pb2.DOCUMENT_STATE_INGESTED


def test_a_lease_shows_the_database_and_no_credentials(work: Work, fleet: Fleet) -> None:
    """Where the document is in a database the lease shows it; a job without a document shows neither."""
    database_id, document = _database_with_document(work)
    for kind, document_id in (("SUMMARY", document.id), ("CLEANUP", "")):
        work.add_job(document_id, kind)
    with_database, without = fleet.lease(fleet.register().id, 2)

    assert (with_database.document.id, with_database.database.id) == (document.id, database_id)
    assert with_database.document.state == documents_pb2.DOCUMENT_STATE_PENDING
    assert b"secret" not in with_database.SerializeToString()
    assert not without.HasField("document")
    assert not without.HasField("database")


def _database_with_document(work: Work) -> tuple[str, documents_pb2.Document]:
    """Make a database and a document in it; give the database's id and the document."""
    server = work.user.channel.servers.CreateServer(
        servers_pb2.CreateServerRequest(
            server=servers_pb2.Server(
                name="s", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1, password="secret"
            )
        )
    )
    database = work.user.channel.databases.CreateDatabase(
        databases_pb2.CreateDatabaseRequest(database=databases_pb2.Database(name="d", server_id=server.id))
    )
    document = documents_pb2.Document(name="a.txt", type="txt", database_id=database.id)
    made = work.documents.CreateDocument(documents_pb2.CreateDocumentRequest(document=document))
    return database.id, made.document


@pytest.mark.parametrize("repeated", [False, True])
def test_a_database_that_is_deleted_meanwhile_costs_no_lease(
    service: Service, work: Work, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, repeated: bool
) -> None:
    """Where the database goes while a lease, or its repeat, is shown, the document is in none, as it is."""
    database_id, document = _database_with_document(work)
    job, worker = work.add_job(document.id, "SUMMARY"), fleet.register()
    if repeated:
        fleet.lease(worker.id, request_id="again")
    look = DatabaseStore.get
    deletion = databases_pb2.DeleteDatabaseRequest(id=database_id, force=True)

    def look_late(store: DatabaseStore, *args: Any) -> Any:
        if service.kind != "sqlite":  # where nobody else writes meanwhile
            monkeypatch.undo()
            work.user.channel.databases.DeleteDatabase(deletion)
        return look(store, *args)

    monkeypatch.setattr(DatabaseStore, "get", look_late)
    (lease,) = fleet.lease(worker.id, request_id="again")

    shows = service.kind == "sqlite"
    assert (lease.job.id, lease.document.id) == (job.id, document.id)
    assert (lease.HasField("database"), lease.document.HasField("database_id")) == (shows, shows)


def test_a_heartbeat_renews_and_says_go_on(service: Service, work: Work, fleet: Fleet) -> None:
    """A heartbeat moves the end of the lease, adds no event and keeps the etag."""
    job = work.add_job(kind="REINDEX")
    (lease,) = fleet.lease(fleet.register().id, lease_duration=seconds(20))
    time.sleep(0.05)
    answer = fleet.beat(lease)

    assert answer.verdict == pb.HEARTBEAT_VERDICT_GO_ON
    assert answer.expire_time.ToNanoseconds() > lease.expire_time.ToNanoseconds()
    now = work.job(job.id)
    assert now.lease_expire_time == answer.expire_time
    assert (now.etag, now.last_sequence) == (lease.job.etag, 2)
    with service.database.engine.connect() as connection:
        counted = sa.select(sa.func.count()).where(job_events.c.job_id == job.id)
        assert connection.scalar(counted) == 2


def test_a_heartbeat_says_cancel_only_to_the_last_holder(work: Work, fleet: Fleet) -> None:
    """Of a cancelled job its last holder hears CANCEL, anybody else LOST, and nobody more."""
    work.add_job()
    worker = fleet.register()
    (first,) = fleet.lease(worker.id)
    fleet.release(first)
    (second,) = fleet.lease(worker.id)
    work.cancel(second.job.id)

    assert fleet.beat(second) == pb.HeartbeatJobResponse(verdict=pb.HEARTBEAT_VERDICT_CANCEL)
    for token in (first.token, "x", new_id()):
        lost = pb.HeartbeatJobResponse(verdict=pb.HEARTBEAT_VERDICT_LOST)
        assert fleet.beat(second, lease_token=token) == lost
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        fleet.stub.HeartbeatJob(pb.HeartbeatJobRequest(job_id=new_id(), lease_token=second.token))


def test_a_heartbeat_of_an_ended_or_waiting_job_is_lost(work: Work, fleet: Fleet) -> None:
    """Once the job has finished, or waits again, its token is worth nothing."""
    worker = fleet.register()
    for end in (fleet.complete, fleet.release):
        work.add_job(kind="REINDEX")
        (lease,) = fleet.lease(worker.id)
        end(lease)
        assert fleet.beat(lease).verdict == pb.HEARTBEAT_VERDICT_LOST
        for left in fleet.lease(worker.id):
            fleet.complete(left)


def test_a_checkpoint_comes_with_the_next_attempt(work: Work, fleet: Fleet) -> None:
    """The next attempt receives what was saved last; absent keeps it, and empty removes it."""
    work.add_job()
    worker = fleet.register()
    expected = [b"", b"page 3", b"page 3", b""]
    saved: list[dict[str, Any]] = [{"checkpoint": b"page 3"}, {}, {"checkpoint": b""}, {}]
    for before, after in zip(expected, saved, strict=True):
        (lease,) = fleet.lease(worker.id)
        assert lease.checkpoint == before
        fleet.beat(lease, **after)
        fleet.release(lease)
    (lease,) = fleet.lease(worker.id)
    fleet.beat(lease, checkpoint=b"\x00" * 32_768)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "checkpoint"):
        fleet.beat(lease, checkpoint=b"\x00" * 32_769)


def test_a_released_job_is_leased_again(work: Work, fleet: Fleet) -> None:
    """What is given back waits at once, its document as before, and no lease counts as lost."""
    job = work.add_job()
    worker = fleet.register()
    (lease,) = fleet.lease(worker.id)
    released = fleet.release(lease, reason="too large for me")

    assert (released.state, released.lost_leases) == (jobs_pb2.JOB_STATE_PENDING, 0)
    assert (released.summary, released.worker_id) == ("too large for me", "")
    assert not released.HasField("lease_expire_time")
    assert work.document(job.document_id).state == documents_pb2.DOCUMENT_STATE_PENDING
    (again,) = fleet.lease(worker.id)
    assert (again.job.id, again.job.attempt, again.document.id) == (job.id, 2, job.document_id)
    assert again.token != lease.token


def _reports(work: Work, fleet: Fleet, lease: pb.Lease) -> list[Callable[[], Any]]:
    """Give every report that a holder can make."""
    return [
        lambda: work.jobs.UpdateJobProgress(jobs_pb2.UpdateJobProgressRequest(**shown(lease))),
        lambda: work.jobs.CompleteJob(jobs_pb2.CompleteJobRequest(**shown(lease))),
        lambda: work.jobs.FailJob(jobs_pb2.FailJobRequest(error="broken", **shown(lease))),
        lambda: fleet.release(lease),
    ]


def test_a_stale_token_is_refused_on_every_report(work: Work, fleet: Fleet) -> None:
    """Neither another's token nor none at all reports on a leased job; the lease goes on undisturbed."""
    work.add_job()
    (lease,) = fleet.lease(fleet.register().id)
    for token in ("", new_id()):
        stale = pb.Lease(job=lease.job, token=token)
        for report in _reports(work, fleet, stale)[: 3 if not token else 4]:
            with refused("FAILED_PRECONDITION", "LEASE_LOST"):
                report()
    assert fleet.complete(lease).job.state == jobs_pb2.JOB_STATE_FINISHED
    with refused("FAILED_PRECONDITION", "JOB_ENDED"):
        fleet.release(lease)


def test_a_lease_ends_by_the_databases_clock_alone(service: Service, work: Work, fleet: Fleet) -> None:
    """From the moment that the lease is over every report is refused, whether or not the reaper came."""
    work.add_job(deadlines=jobs_pb2.JobDeadlines(start_to_close=seconds(3600)))
    (lease,) = fleet.lease(fleet.register().id)
    with service.database.unit_of_work() as uow:
        over = uow.queue.now()
        connection = uow.connection
        # The time alone and not due_time, so that no reaper looks at it.
        connection.execute(sa.update(jobs).where(jobs.c.id == lease.job.id).values(lease_expire_time=over))
        uow.commit()
    for report in _reports(work, fleet, lease):
        with refused("FAILED_PRECONDITION", "LEASE_LOST"):
            report()
    assert fleet.beat(lease).verdict == pb.HEARTBEAT_VERDICT_LOST


def test_an_attempt_of_another_number_is_stale(work: Work, fleet: Fleet) -> None:
    """The token of a lease does not report on the attempt after it, which has a lease of its own."""
    work.add_job()
    worker = fleet.register()
    (first,) = fleet.lease(worker.id)
    fleet.release(first)
    (second,) = fleet.lease(worker.id)
    for report in _reports(work, fleet, first)[:3]:
        with refused("FAILED_PRECONDITION", "STALE_ATTEMPT"):
            report()
    with refused("FAILED_PRECONDITION", "LEASE_LOST"):
        fleet.release(first)
    assert ids([second]) == [first.job.id]
    assert fleet.complete(second).job.attempt == 2


@pytest.mark.parametrize(
    ("field", "value"), [("lease_duration", 0.5), ("lease_duration", 3601), ("wait", 60.5), ("wait", -1)]
)
def test_durations_have_limits(work: Work, fleet: Fleet, field: str, value: float) -> None:
    """A lease lives 1 s to 1 h, and a call waits at most 60 s."""
    worker = fleet.register()
    request = pb.LeaseJobsRequest(worker_id=worker.id)
    getattr(request, field).CopyFrom(seconds(value))
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", field):
        fleet.stub.LeaseJobs(request)
    work.add_job(kind="REINDEX")
    (lease,) = fleet.lease(worker.id, lease_duration=seconds(3600))
    assert lease.duration.ToSeconds() == 3600


def test_a_document_that_cannot_be_ingested_holds_nobody_up(
    service: Service, work: Work, fleet: Fleet
) -> None:
    """A job whose document became DELETED behind its back is called off, and the next one is leased."""
    broken, good = work.add_job(), work.add_job()
    with service.database.unit_of_work() as uow:
        row = uow.documents.lock(work.user.id, broken.document_id)
        uow.documents.change(row, state="DELETED", delete_time=uow.now, live_scope=None)
        uow.commit()
    assert ids(fleet.lease(fleet.register().id, 5)) == [good.id]
    assert work.job(broken.id).state == jobs_pb2.JOB_STATE_CANCELLED


def test_large_jobs_do_not_make_the_answer_too_large(work: Work, fleet: Fleet) -> None:
    """Of many jobs with large parameters so many are leased as one answer can hold."""
    for _ in range(30):
        work.add_job(kind="LARGE", parameters={"n": [1.0] * 16_000})
    worker = fleet.register()
    answers = []
    while leases := fleet.lease(worker.id, 100):
        answers.append(ids(leases))
    assert sorted(map(len, answers)) == [12, 18]
    assert len({job_id for answer in answers for job_id in answer}) == 30
