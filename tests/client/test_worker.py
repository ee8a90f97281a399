"""What a worker makes of its handler's ends, of cancellations, and of being stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from morag_client import (
    JobCancelled,
    JobFailed,
    JobStopped,
    LeaseLost,
    Task,
    Worker,
    refusal_of,
)
from morag_meta.errors import MetaError, Reason
from morag_meta.jobs import actions
from moragmeta.v1 import api_keys_pb2, jobs_pb2, workers_pb2
from moragmeta.v1.workers_pb2_grpc import WorkerServiceStub
from tests.client.conftest import Owner, until
from tests.service import Service, User

FINISHED, FAILED = jobs_pb2.JOB_STATE_FINISHED, jobs_pb2.JOB_STATE_FAILED
PENDING, PROCESSING = jobs_pb2.JOB_STATE_PENDING, jobs_pb2.JOB_STATE_PROCESSING

Handler = Callable[[Task], jobs_pb2.JobResult | None]


@contextmanager
def working(owner: Owner, handler: Handler, **choices: Any) -> Iterator[Worker]:
    """Run a worker for the length of a block, and then stop it."""
    worker = Worker(owner.channel, handler, **({"grace": 0.0} | choices))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


class Busy:
    """A handler that works until it is told to stop, and remembers what it was told."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.told: list[type[JobStopped]] = []
        self.told_time = 0.0
        self.tasks: list[Task] = []

    def __call__(self, task: Task) -> None:
        """Rest until the work is to stop."""
        self.tasks.append(task)
        self.started.set()
        try:
            while True:
                task.rest(60.0)
        except JobStopped as stopped:
            self.told.append(type(stopped))
            self.told_time = time.monotonic()
            raise


def test_jobs_are_done_with_their_results(owner: Owner) -> None:
    """Each job is FINISHED once, with progress that rises and what its handler returned."""
    jobs = [owner.job() for _ in range(5)]

    def handle(task: Task) -> jobs_pb2.JobResult:
        for percentage in (0, 40, 80):
            task.progress(percentage, "counting", f"{percentage} of 100")
        return jobs_pb2.JobResult(chunks=7, quality=0.5)

    with working(owner, handle, concurrency=2):
        until(lambda: owner.ended(*jobs))
    for job in map(owner.now, jobs):
        assert (job.state, job.attempt, job.result.chunks, job.summary) == (FINISHED, 1, 7, "80 of 100")
        events = owner.events(job)
        assert [event.percentage for event in events if event.state == PROCESSING][1:] == [0, 40, 80]


def test_handler_without_result_completes_its_job(owner: Owner) -> None:
    """Returning nothing is success."""
    job = owner.job()
    with working(owner, lambda _: None):
        until(lambda: owner.ended(job))
    assert owner.now(job).state == FINISHED


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (JobFailed("no such page"), "no such page"),
        (ValueError("bad\0 value \ud800"), "ValueError: bad value ?"),
        (KeyError(), "KeyError"),
        (JobFailed(), "no reason was given"),
        (JobFailed("\0"), "no reason was given"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_what_a_handler_raises_fails_its_job(owner: Owner, error: BaseException, said: str) -> None:
    """The error is told to people, in a form that the service takes, and also what would end a program."""
    job = owner.job()

    def handle(task: Task) -> None:
        raise error

    with working(owner, handle):
        until(lambda: owner.ended(job))
    assert (owner.now(job).state, owner.now(job).error) == (FAILED, said)


@pytest.mark.parametrize(("quality", "size", "said"), [(7.0, 1, "quality"), (0.5, 5_000_000, "EXHAUSTED")])
def test_result_that_is_refused_fails_the_job(owner: Owner, quality: float, size: int, said: str) -> None:
    """A result that breaks the service's rules is the handler's fault, and the job says so."""
    job, result = owner.job(), jobs_pb2.JobResult(quality=quality)
    result.metadata["text"] = "x" * size
    with working(owner, lambda _: result):
        until(lambda: owner.ended(job))
    assert owner.now(job).state == FAILED
    assert said in owner.now(job).error


def test_fault_of_the_service_does_not_fail_the_job(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is done and cannot be reported is done again by the next attempt, which ends well."""

    def broken(*_: Any, **__: Any) -> Any:
        monkeypatch.undo()
        raise MetaError("internal error", reason=Reason.INTERNAL)

    monkeypatch.setattr(actions, "complete_job", broken)
    job = owner.job()
    with working(owner, lambda _: None, lease_duration=1.0):
        until(lambda: owner.now(job).attempt == 1 and owner.now(job).state == PENDING)
    assert not owner.now(job).error


@pytest.mark.parametrize(("returned", "error"), [("done", "TypeError"), ({"pages": 7}, "ValueError")])
def test_what_is_no_result_fails_the_job(owner: Owner, returned: object, error: str) -> None:
    """A handler that returns something else is wrong, and the job says so at once, not after three leases."""
    job = owner.job()
    with working(owner, lambda _: returned):  # type: ignore[arg-type,return-value]
        until(lambda: owner.ended(job), 15)
    assert (owner.now(job).state, owner.now(job).attempt) == (FAILED, 1)
    assert owner.now(job).error.startswith(f"the handler returned no result: {error}")


def test_worker_takes_what_it_was_made_for(owner: Owner) -> None:
    """Jobs of other kinds are left alone."""
    other, mine = owner.job("OTHER"), owner.job("MINE")
    with working(owner, lambda _: None, kinds=["MINE"]) as worker:
        until(lambda: owner.ended(mine))
        assert worker.id
    assert (owner.now(other).state, owner.now(mine).worker_id) == (PENDING, worker.id)


def test_no_more_jobs_at_once_than_asked_for(owner: Owner) -> None:
    """With a concurrency of 3, three of five jobs run, and the others follow."""
    jobs = [owner.job() for _ in range(5)]
    running, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def handle(task: Task) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(10)
        with lock:
            running -= 1

    with working(owner, handle, concurrency=3):
        until(lambda: running == 3)
        states = [owner.now(job).state for job in jobs]
        assert sorted(states) == sorted([PROCESSING] * 3 + [PENDING] * 2)
        go.set()
        until(lambda: owner.ended(*jobs))
    assert most == 3


def test_lease_is_renewed_while_the_handler_is_silent(owner: Owner) -> None:
    """A handler that says nothing for longer than its lease lives keeps its job."""
    job = owner.job()

    def handle(task: Task) -> None:
        task.rest(8.0)

    with working(owner, handle, lease_duration=5.0):
        until(lambda: owner.ended(job))
    assert (owner.now(job).state, owner.now(job).attempt, owner.now(job).lost_leases) == (FINISHED, 1, 0)


def test_cancellation_reaches_a_silent_handler_at_once(owner: Owner) -> None:
    """The handler hears of it within about a second, long before the next heartbeat, and reports nothing."""
    job, busy = owner.job(), Busy()
    with working(owner, busy, lease_duration=90.0):
        assert busy.started.wait(20)
        owner.cancel(job)
        cancelled = time.monotonic()
        until(lambda: busy.told)
    assert busy.told == [JobCancelled]
    assert busy.tasks[0].cancelled
    assert busy.told_time - cancelled < 5.0  # generous: the heartbeat would come after 30 s
    assert owner.now(job).state == jobs_pb2.JOB_STATE_CANCELLED


@pytest.mark.parametrize("scopes", [["jobs:work"], ["jobs:work:all"], ["*"]])
def test_every_key_that_may_work_hears_of_cancellations(
    owner: Owner, service: Service, user: User, scopes: list[str]
) -> None:
    """A key for its owner's jobs, one for everybody's, and an ADMIN's for all: each follows its leases."""
    granter = user if scopes == ["jobs:work"] else service.admin
    key = granter.channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(api_key=api_keys_pb2.ApiKey(name=f"worker {scopes}", scopes=scopes))
    ).secret
    kind = f"KIND-{scopes[0]}"
    job, busy, other = owner.job(kind), Busy(), Owner(owner.target, key)
    with working(other, busy, kinds=[kind]):
        assert busy.started.wait(20)
        owner.cancel(job)
        until(lambda: busy.told, 25)  # the heartbeat would come after 30 s
    other.channel.close()
    assert busy.told == [JobCancelled]


def test_worker_that_was_forgotten_registers_again(owner: Owner, service: Service) -> None:
    """Not known any more, it goes on under a new id."""
    with working(owner, lambda _: None) as worker:
        until(lambda: worker.id)
        before = worker.id
        with service.database.unit_of_work() as uow:
            uow.connection.exec_driver_sql(f"DELETE FROM workers WHERE id = '{before}'")
            uow.commit()
        jobs = [owner.job(), owner.job()]  # one may still end the call that waits
        until(lambda: owner.ended(*jobs))
        until(lambda: worker.id != before)


def test_nothing_is_reported_of_a_lease_that_another_has(owner: Owner) -> None:
    """Given back behind its back, the handler hears LeaseLost and the other holder is not disturbed."""
    job, busy = owner.job(), Busy()
    with working(owner, busy, concurrency=1) as worker:
        assert busy.started.wait(20)
        hold = busy.tasks[0]._hold  # noqa: SLF001 - only the token's holder can give a job back
        stub = WorkerServiceStub(owner.channel)
        stub.ReleaseJob(workers_pb2.ReleaseJobRequest(job_id=job.id, lease_token=hold.token))
        with pytest.raises(JobStopped):
            busy.tasks[0].progress(10)
        until(lambda: busy.told)
        assert busy.told[0] is LeaseLost
        worker.stop()
        assert [event for event in owner.events(job) if event.percentage] == []


def test_refused_worker_says_why(owner: Owner) -> None:
    """A worker whose key is not valid ends with the service's refusal."""
    stranger = Owner(owner.target, "wrong")
    with pytest.raises(grpc.RpcError) as caught:
        Worker(stranger.channel, lambda _: None).run()
    stranger.channel.close()
    assert refusal_of(caught.value).reason == "CREDENTIAL_INVALID"
