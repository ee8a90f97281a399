"""Repeated requests of workers: whatever is sent again happens once, and gets the leases that were lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from morag_meta.ids import new_id
from moragmeta.v1 import jobs_pb2
from moragmeta.v1 import workers_pb2 as pb
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.service import Service
from tests.workers.fleet import Fleet, ids, key_with, seconds, shown


def test_a_repeat_answers_the_same_leases(work: Work, fleet: Fleet) -> None:
    """The same request id answers the leases of the first call, tokens and all, and leases nothing more."""
    for _ in range(4):
        work.add_job()
    worker = fleet.register()
    first = fleet.lease(worker.id, 2, request_id="r")
    again = fleet.lease(worker.id, 2, request_id="r")
    assert again == first
    assert len(fleet.lease(worker.id, 10)) == 2
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"):
        fleet.lease(worker.id, 3, request_id="r")


def test_a_repeat_may_wait_for_another_time(work: Work, fleet: Fleet) -> None:
    """Who asks again has less time left, and gets the same leases however long the repeat would wait."""
    work.add_job()
    worker = fleet.register()
    first = fleet.lease(worker.id, request_id="r", wait=5)
    assert fleet.lease(worker.id, request_id="r", wait=3) == first
    assert fleet.lease(worker.id, request_id="r") == first


def test_a_repeat_answers_only_what_is_still_held(work: Work, fleet: Fleet) -> None:
    """What was given back, finished, or is in its next attempt is left out of a repeat."""
    for _ in range(4):
        work.add_job(kind="A")
    worker = fleet.register()
    done, given_back, taken_again, held = fleet.lease(worker.id, 4, request_id="r")
    fleet.complete(done)
    for lease in (given_back, taken_again):
        fleet.release(lease)
    (again,) = fleet.lease(worker.id)
    assert again.job.id in ids([given_back, taken_again])
    assert fleet.lease(worker.id, 4, request_id="r") == [held]


def test_an_empty_answer_is_not_remembered(work: Work, fleet: Fleet) -> None:
    """A call that got nothing is repeated in earnest, and then remembered."""
    worker = fleet.register()
    assert fleet.lease(worker.id, request_id="s") == []
    job = work.add_job(kind="A")
    first = fleet.lease(worker.id, request_id="s")
    assert ids(first) == [job.id]
    assert fleet.lease(worker.id, request_id="s") == first


def test_duplicates_at_the_same_moment_are_one_call(work: Work, fleet: Fleet) -> None:
    """Of eight calls with one request id at once all get the same two leases, and no third job is taken."""
    for _ in range(8):
        work.add_job(kind="A")
    worker = fleet.register()
    together = threading.Barrier(8)

    def lease(_: int) -> list[pb.Lease]:
        together.wait(10)
        return fleet.lease(worker.id, 2, request_id="r")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lease, range(8)))
    assert answers == [answers[0]] * 8
    assert len(answers[0]) == 2
    assert len(fleet.lease(worker.id, 10)) == 6


def test_a_duplicate_of_a_call_that_waits_gets_its_lease(work: Work, fleet: Fleet) -> None:
    """Two calls with one request id that wait are both answered with the one job."""
    worker = fleet.register()
    request = pb.LeaseJobsRequest(worker_id=worker.id, wait=seconds(20), request_id="r")
    calls = [fleet.stub.LeaseJobs.future(request) for _ in range(2)]
    time.sleep(0.3)
    job = work.add_job(kind="A")
    answers = [list(call.result(15).leases) for call in calls]
    assert ids(answers[0]) == [job.id]
    assert answers[0] == answers[1]


def test_a_worker_registers_once(fleet: Fleet) -> None:
    """A repeated registration answers the same worker."""
    request = pb.RegisterWorkerRequest(worker=pb.Worker(name="w", kinds=["A"]), request_id="r")
    assert fleet.stub.RegisterWorker(request) == fleet.stub.RegisterWorker(request)
    assert len(fleet.stub.ListWorkers(pb.ListWorkersRequest()).workers) == 1


def test_reports_of_a_worker_of_everybody_can_be_repeated(service: Service, work: Work) -> None:
    """A release and a completion with a request id are answered again, though the job is another owner's."""
    kind = f"K{new_id()}"
    fleet = Fleet(key_with(service, service.admin, "jobs:work:all", owner_id=service.new_user().id))
    worker = fleet.register(kinds=[kind])
    work.add_job(kind=kind)
    (lease,) = fleet.lease(worker.id)
    assert fleet.release(lease, request_id="r") == fleet.release(lease, request_id="r")
    (lease,) = fleet.lease(worker.id)
    outcomes = [fleet.complete(lease, request_id="c").outcome for _ in range(2)]
    assert outcomes == [jobs_pb2.REPORT_OUTCOME_APPLIED, jobs_pb2.REPORT_OUTCOME_REPEATED]
    failing = jobs_pb2.FailJobRequest(error="x", request_id="f", **shown(lease))
    with refused("FAILED_PRECONDITION", "JOB_ENDED"):
        fleet.channel.jobs.FailJob(failing)
