"""Long polls: a worker that waits is answered at once when there is something for it, and in time if not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from morag_meta.ids import new_id
from morag_meta.jobs.actions import create_job
from moragmeta.v1 import api_keys_pb2
from moragmeta.v1 import workers_pb2 as pb
from tests.backends.databases import Backend
from tests.jobs.conftest import Work
from tests.refusals import refused
from tests.service import Service, serving
from tests.workers.fleet import Fleet, ids, key_with, seconds

LONG = 25  # seconds of a wait that is expected to end before


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Give threads for calls that wait."""
    with ThreadPoolExecutor(32) as threads:
        yield threads


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def _waiting(service: Service) -> int:
    """Count the calls that wait in the server."""
    return len(service.app.openings)


def _answer(call: Future[list[pb.Lease]]) -> tuple[list[str], float]:
    """Give the jobs of an answer, and how long it took from now."""
    begun = time.monotonic()
    return ids(call.result(30)), time.monotonic() - begun


def test_who_waits_gets_a_new_job_at_once(
    service: Service, work: Work, fleet: Fleet, pool: ThreadPoolExecutor
) -> None:
    """A call that waits is answered when a job is made, by a long way before its wait is over."""
    worker = fleet.register()
    call = pool.submit(fleet.lease, worker.id, wait=LONG)
    _until(lambda: _waiting(service) > 0)
    job = work.add_job()
    got, took = _answer(call)
    assert got == [job.id]
    assert took < LONG / 2


def test_who_waits_gets_what_is_given_back(work: Work, fleet: Fleet, pool: ThreadPoolExecutor) -> None:
    """A released job wakes who waits, as a new one does."""
    work.add_job(kind="A")
    worker = fleet.register()
    (lease,) = fleet.lease(worker.id)
    call = pool.submit(fleet.lease, worker.id, wait=LONG)
    time.sleep(0.2)
    fleet.release(lease)
    assert _answer(call)[0] == [lease.job.id]


def test_who_waits_gets_a_job_of_another_process(
    service: Service, work: Work, fleet: Fleet, pool: ThreadPoolExecutor
) -> None:
    """A job that another process committed, which told this one nothing directly, is found soon."""
    worker = fleet.register()
    call = pool.submit(fleet.lease, worker.id, wait=LONG)
    _until(lambda: _waiting(service) > 0)
    with service.database.unit_of_work() as uow:  # whose commits the server does not hear of
        job = create_job(uow, work.user.id, kind="A")
        uow.commit()
    got, took = _answer(call)
    assert got == [job["id"]]
    assert took < LONG / 2


def test_a_wait_without_a_job_ends_in_time(fleet: Fleet) -> None:
    """After its wait a call answers without leases; also a worker that can take none waits."""
    worker = fleet.register(kinds=["A"])
    for kinds in ([], ["B"]):
        begun = time.monotonic()
        assert fleet.lease(worker.id, wait=1.2, kinds=kinds) == []
        assert 1.1 < time.monotonic() - begun < 10


def test_a_wait_ends_before_the_calls_deadline(fleet: Fleet) -> None:
    """A call whose deadline comes first is answered before it, instead of failing."""
    worker = fleet.register()
    request = pb.LeaseJobsRequest(worker_id=worker.id, wait=seconds(30))
    for last in (False, False, True):  # a machine may pause just between the answer and the deadline
        try:
            assert list(fleet.stub.LeaseJobs(request, timeout=2).leases) == []
        except grpc.RpcError:
            assert not last
        else:
            return


def test_each_of_many_who_wait_gets_one_of_many(
    service: Service, work: Work, fleet: Fleet, pool: ThreadPoolExecutor
) -> None:
    """Ten jobs that are made while thirty wait are answers to ten of them, and the others wait on."""
    workers = [fleet.register().id for _ in range(30)]
    calls = [pool.submit(fleet.lease, worker, wait=LONG) for worker in workers]
    _until(lambda: _waiting(service) == 30)
    made = {work.add_job(kind="A").id for _ in range(10)}
    _until(lambda: sum(call.done() for call in calls) >= 10)
    _until(lambda: _waiting(service) == 20)
    answers = [ids(call.result()) for call in calls if call.done()]
    assert (len(answers), {job_id for answer in answers for job_id in answer}) == (10, made)
    made |= {work.add_job(kind="A").id for _ in range(20)}
    answers = [ids(call.result(30)) for call in calls]
    assert list(map(len, answers)) == [1] * 30
    assert {job_id for answer in answers for job_id in answer} == made


def test_who_waits_longest_is_answered_first(
    service: Service, work: Work, fleet: Fleet, pool: ThreadPoolExecutor
) -> None:
    """Of two who wait the one that came first gets the one job, and what it does not take the other."""
    first, second = fleet.register(kinds=["A", "B"]), fleet.register()
    calls = []
    for number, worker in enumerate((first, second), start=1):
        calls.append(pool.submit(fleet.lease, worker.id, wait=LONG))
        _until(lambda number=number: _waiting(service) == number)  # type: ignore[misc]
    other = work.add_job(kind="C")
    assert _answer(calls[1])[0] == [other.id]
    assert not calls[0].done()
    job = work.add_job(kind="B")
    assert _answer(calls[0])[0] == [job.id]


def test_who_left_takes_no_job_along(
    service: Service, work: Work, fleet: Fleet, pool: ThreadPoolExecutor
) -> None:
    """Calls that were cancelled while they waited are forgotten, and the next one gets the job."""
    worker = fleet.register()
    request = pb.LeaseJobsRequest(worker_id=worker.id, wait=seconds(LONG))
    left: list[Any] = [fleet.stub.LeaseJobs.future(request) for _ in range(5)]
    _until(lambda: _waiting(service) == 5)
    stays = pool.submit(fleet.lease, worker.id, wait=LONG)
    _until(lambda: _waiting(service) == 6)
    for call in left:
        call.cancel()
    _until(lambda: _waiting(service) == 1)
    job = work.add_job(kind="A")
    assert _answer(stays)[0] == [job.id]
    _until(lambda: _waiting(service) == 0)


def test_a_revoked_key_gets_nothing_that_it_waited_for(
    service: Service, work: Work, fleet: Fleet, pool: ThreadPoolExecutor
) -> None:
    """Who loses the key while waiting is refused when a job comes, and the job is left to others."""
    keys = work.user.channel.api_keys
    made = keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(api_key=api_keys_pb2.ApiKey(name="w", scopes=["jobs:work"]))
    )
    outsider = Fleet(service.channel(api_key=made.secret))
    call = pool.submit(outsider.lease, outsider.register().id, wait=LONG)
    _until(lambda: _waiting(service) > 0)
    keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(id=made.api_key.id))
    job = work.add_job(kind="A")
    with refused("UNAUTHENTICATED"):
        call.result(30)
    assert ids(fleet.lease(fleet.register().id)) == [job.id]


def test_a_key_that_shrinks_while_it_waits_gets_less(service: Service, pool: ThreadPoolExecutor) -> None:
    """Who loses the scope of everybody's jobs while waiting is given none of somebody else's, but an own."""
    kind = f"K{new_id()}"
    channel = key_with(service, service.admin, "jobs:work", "jobs:work:all")
    fleet = Fleet(channel)
    worker = fleet.register(kinds=[kind])
    assert worker.serves_everyone
    call = pool.submit(fleet.lease, worker.id, wait=LONG)
    _until(lambda: _waiting(service) > 0)
    keys = service.admin.channel.api_keys
    (newest, *_) = keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest()).api_keys
    keys.UpdateApiKey(
        api_keys_pb2.UpdateApiKeyRequest(
            api_key=api_keys_pb2.ApiKey(id=newest.id, scopes=["jobs:work"]),
            update_mask=FieldMask(paths=["scopes"]),
        )
    )
    Work(service.new_user()).add_job(kind=kind)
    own = Work(service.admin).add_job(kind=kind)
    assert ids(call.result(30)) == [own.id]


def test_a_drain_ends_the_waits(backend: Backend, pool: ThreadPoolExecutor) -> None:
    """A server that ends tells those who wait to go elsewhere, at once and not after its grace."""
    with serving(backend) as service:
        user = service.new_user()
        fleet = Fleet(user.channel)
        worker = fleet.register()
        call = pool.submit(fleet.lease, worker.id, wait=LONG)
        _until(lambda: _waiting(service) > 0)
        begun = time.monotonic()
        stopping = threading.Thread(target=service.on_loop, args=(service.app.stop(20),))
        stopping.start()
        with refused("UNAVAILABLE", "SERVER_DRAINING"):
            call.result(30)
        stopping.join(30)
        assert time.monotonic() - begun < 10
        with pytest.raises(grpc.RpcError):
            fleet.lease(worker.id)
