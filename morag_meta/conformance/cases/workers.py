"""Workers: registration, which jobs a worker is given, and whose."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import holds, refused, same
from morag_meta.conformance.waits import lasting, missing_id
from moragmeta.v1 import api_keys_pb2, documents_pb2, jobs_pb2
from moragmeta.v1 import workers_pb2 as pb

AREA = Area("workers")


def _ids(leases: list[pb.Lease]) -> list[str]:
    return [lease.job.id for lease in leases]


def _get(bench: Bench, worker_id: str) -> pb.Worker:
    return bench.mine.workers.GetWorker(pb.GetWorkerRequest(id=worker_id))


@AREA.case
def a_worker_is_registered(bench: Bench) -> None:
    """A registered worker is got and listed, with what it takes and how many leases it holds."""
    worker = bench.add_worker()
    seen = (worker.owner_id, list(worker.kinds), worker.serves_everyone, worker.leased_jobs)
    same("owner, kinds, serves_everyone, leases", seen, (bench.me.id, [bench.kind], False, 0))
    listed = bench.mine.workers.ListWorkers(pb.ListWorkersRequest(page_size=1000)).workers
    holds("the worker in the list", fact=worker.id in [each.id for each in listed], seen="others")
    bench.add_job()
    bench.lease(worker.id)
    same("leases that it holds", _get(bench, worker.id).leased_jobs, 1)


@AREA.case
def a_repeated_registration_is_one(bench: Bench) -> None:
    """A registration repeated under its request id makes one worker."""
    request = pb.RegisterWorkerRequest(worker=pb.Worker(name=bench.name()), request_id=bench.name())
    first, second = (bench.mine.workers.RegisterWorker(request).id for _ in range(2))
    holds("one worker", fact=bool(first) and first == second, seen="two")


@AREA.case
def a_lease_shows_the_work(bench: Bench) -> None:
    """A lease has the job in its next attempt, a token, an end, the document and its database."""
    database = bench.add_database()
    document = bench.add_document(database_id=database.id)
    job = bench.add_job(document_id=document.id)
    worker = bench.add_worker()
    (lease,) = bench.lease(worker.id)
    seen = (lease.job.id, lease.job.state, lease.job.attempt, lease.job.worker_id)
    same("job, state, attempt, worker", seen, (job.id, jobs_pb2.JOB_STATE_PROCESSING, 1, worker.id))
    same("document and database", (lease.document.id, lease.database.id), (document.id, database.id))
    same("characters of the token", len(lease.token), 36)
    same("the end in the job", lease.job.lease_expire_time, lease.expire_time)
    holds("a duration", fact=lease.duration.seconds > 0, seen=lease.duration.seconds)
    same("jobs that are left", bench.lease(worker.id), [])


@AREA.case
def a_leased_ingestion_moves_its_document(bench: Bench) -> None:
    """A leased INGESTION job makes its document INGESTING, and its end by the lease INGESTED."""
    document = bench.add_document()
    bench.add_job(kind="INGESTION", document_id=document.id)
    worker = bench.add_worker(kinds=[], document_types=[bench.kind])
    (lease,) = bench.lease(worker.id)
    same("state of the document", lease.document.state, documents_pb2.DOCUMENT_STATE_INGESTING)
    bench.complete(lease.job, 1, lease_token=lease.token, result=jobs_pb2.JobResult(chunks=3))
    after = bench.document(document.id)
    same("state and chunks", (after.state, after.chunks), (documents_pb2.DOCUMENT_STATE_INGESTED, 3))


@AREA.case
def each_job_goes_to_one_worker(bench: Bench) -> None:
    """Six workers that lease at once share the jobs: each goes to exactly one, and none is left over."""
    jobs = {bench.add_job().id for _ in range(12)}
    workers = [bench.add_worker().id for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        shares = list(pool.map(lambda worker: _ids(bench.lease(worker, max_jobs=2)), workers))
    given = [job for share in shares for job in share]
    same("jobs that were given twice", len(given) - len(set(given)), 0)
    rest = _ids(bench.lease(workers[0], max_jobs=100))
    same("jobs that were given", {*given, *rest}, jobs)
    same("jobs that one call left while others asked", rest, [])


@AREA.case
def the_urgent_come_first(bench: Bench) -> None:
    """Jobs are leased by priority, and of one priority the oldest first."""
    names = ("LOW", "NORMAL", "HIGH", "URGENT", "NORMAL")
    jobs = [bench.add_job(priority=jobs_pb2.JobPriority.Value(f"JOB_PRIORITY_{name}")).id for name in names]
    leased = _ids(bench.lease(bench.add_worker().id, max_jobs=5))
    same("the places of the jobs", [jobs.index(job) for job in leased], [3, 2, 1, 4, 0])


@AREA.case
def a_worker_takes_what_it_said(bench: Bench) -> None:
    """A worker is given jobs of its kinds and document types alone, and of those that the call names."""
    typed = bench.add_job(document_id=bench.add_document().id).id
    bench.add_job()
    other = bench.add_worker(kinds=[bench.name()])
    same("jobs of another kind", bench.lease(other.id), [])
    same("jobs of its kind, if the call names another", bench.lease(other.id, kinds=[bench.kind]), [])
    reader = bench.add_worker(document_types=[bench.kind])
    same("jobs of its type", _ids(bench.lease(reader.id, max_jobs=10)), [typed])


@AREA.case
def remote_jobs_are_for_remote_workers(bench: Bench) -> None:
    """A LOCAL worker is given PENDING jobs, a REMOTE one those that wait for a remote worker."""
    local, remote = bench.add_job().id, bench.add_job(execution=jobs_pb2.JOB_EXECUTION_REMOTE).id
    for execution, expected in (
        (jobs_pb2.JOB_EXECUTION_REMOTE, [remote]),
        (jobs_pb2.JOB_EXECUTION_LOCAL, [local]),
    ):
        worker = bench.add_worker(execution=execution)
        same("jobs", _ids(bench.lease(worker.id, max_jobs=10)), expected)


@AREA.case
def a_job_waits_for_its_time(bench: Bench) -> None:
    """A job is not leased before its not_before."""
    worker, ahead = bench.add_worker(), jobs_pb2.Job().not_before
    ahead.FromSeconds(int(time.time()) + 3600)
    later = bench.add_job(not_before=ahead)
    same("the time that is kept", later.not_before, ahead)
    same("jobs before the time", bench.lease(worker.id), [])


@AREA.case
def a_worker_may_wait(bench: Bench) -> None:
    """A call that waits answers soon after a job is made, and empty at its end where none is."""
    worker = bench.add_worker().id
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bench.lease, worker, wait=lasting(30))
        time.sleep(0.5)
        begun, job = time.monotonic(), bench.add_job()
        same("the leases", _ids(waiting.result()), [job.id])
    took = time.monotonic() - begun
    holds("a lease long before the end of the wait", fact=took < 15, seen=f"{took:.1f} s")
    begun = time.monotonic()
    same("leases at the end of the wait", bench.lease(worker, wait=lasting(1)), [])
    took = time.monotonic() - begun
    holds("an answer after 1 s", fact=took > 0.5, seen=f"{took:.1f} s")


@AREA.case
def a_repeated_call_gives_the_same_leases(bench: Bench) -> None:
    """A LeaseJobs repeated under its request id answers the leases of the first call that are held."""
    worker = bench.add_worker().id
    for _ in range(2):
        bench.add_job()
    request_id = bench.name()
    first = bench.lease(worker, request_id=request_id)
    again = bench.lease(worker, request_id=request_id)
    same("leases of the first call", len(first), 1)
    same(
        "the second answer's job, token and attempt",
        [(each.job.id, each.token, each.job.attempt) for each in again],
        [(each.job.id, each.token, each.job.attempt) for each in first],
    )


@AREA.case
def an_empty_answer_is_not_remembered(bench: Bench) -> None:
    """A LeaseJobs that found nothing finds, under the same request id, what is there by then."""
    worker, request_id = bench.add_worker().id, bench.name()
    same("the first answer", bench.lease(worker, request_id=request_id), [])
    job = bench.add_job()
    same("the second answer", _ids(bench.lease(worker, request_id=request_id)), [job.id])


@AREA.case
def a_missing_worker_is_not_found(bench: Bench) -> None:
    """A worker that does not exist is NOT_FOUND, to get and to lease for."""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="worker"):
        _get(bench, missing_id())
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="worker"):
        bench.lease(missing_id())


@AREA.case
def requests_for_jobs_are_checked(bench: Bench) -> None:
    """More than 100 jobs, a wait over 60 s and a lease of less than 1 s are INVALID_ARGUMENT."""
    worker = bench.add_worker().id
    for field, value in (("max_jobs", 101), ("wait", lasting(61)), ("lease_duration", lasting(0))):
        with refused("INVALID_ARGUMENT", "INVALID_FIELD", field):
            bench.lease(worker, None, **{field: value})


@AREA.admin_case
def a_worker_serves_its_owner(bench: Bench) -> None:
    """A worker is given its owner's jobs alone, and is NOT_FOUND for another user."""
    bench.add_job()
    others = bench.add_worker(bench.other.caller)
    same("jobs of another owner", bench.lease(others.id, bench.other.caller), [])
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="worker"):
        bench.lease(others.id)


@AREA.admin_case
def an_admins_worker_serves_everyone(bench: Bench) -> None:
    """A worker by a key with `jobs:work:all` is given every owner's jobs, those of no owner twice in turn."""
    many = [bench.add_job().id for _ in range(3)]
    one = bench.add_job(bench.other.caller).id
    _, caller = bench.add_key("jobs:work:all", by=bench.admin)
    worker = bench.add_worker(caller)
    same("serves_everyone", worker.serves_everyone, True)
    same("the first two", set(_ids(bench.lease(worker.id, caller, max_jobs=2))), {many[0], one})
    same("the rest", _ids(bench.lease(worker.id, caller, max_jobs=10)), many[1:])


@AREA.case
def a_workers_key_reaches_nothing_else(bench: Bench) -> None:
    """A key with `jobs:work` alone leases and reports, and reads neither jobs nor documents nor keys."""
    _, caller = bench.add_key("jobs:work")
    bench.add_job()
    (lease,) = bench.lease(bench.add_worker(caller).id, caller)
    attempts: list[tuple[Any, Any]] = [
        (caller.jobs.GetJob, jobs_pb2.GetJobRequest(id=lease.job.id)),
        (caller.jobs.ListJobs, jobs_pb2.ListJobsRequest()),
        (caller.documents.ListDocuments, documents_pb2.ListDocumentsRequest()),
        (caller.api_keys.ListApiKeys, api_keys_pb2.ListApiKeysRequest()),
        (caller.jobs.CancelJob, jobs_pb2.CancelJobRequest(id=lease.job.id)),
    ]
    for call, request in attempts:
        with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
            call(request)
    report = jobs_pb2.CompleteJobRequest(id=lease.job.id, attempt=1, report_number=1, lease_token=lease.token)
    same("the job's state", caller.jobs.CompleteJob(report).job.state, jobs_pb2.JOB_STATE_FINISHED)
