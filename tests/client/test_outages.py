"""Workers whose service is killed, whose answers are lost, and who are cut off from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from morag_client import LeaseLost, Task, Worker, connect, refusal_of
from moragmeta.v1 import api_keys_pb2, jobs_pb2
from tests.client.conftest import Line, Owner, until
from tests.client.test_worker import FINISHED, PENDING, PROCESSING, Busy, working
from tests.processes import ServerProcess
from tests.service import User


@pytest.fixture
def remote(line: Line, owner: Owner) -> Iterator[Owner]:
    """Give the same user behind a line that can fail."""
    made = Owner(line.target, owner.key)
    yield made
    made.channel.close()


def test_worker_goes_on_after_the_server_was_killed(mortal: Owner, process: ServerProcess) -> None:
    """Over two SIGKILLs of the server each job is done, in its first attempt, with every report once."""
    jobs = [mortal.job() for _ in range(4)]
    reports: list[str] = []

    def handle(task: Task) -> jobs_pb2.JobResult:
        for percentage in range(0, 100, 10):
            task.progress(percentage)
            reports.append(task.job.id)
            task.rest(0.1)
        return jobs_pb2.JobResult(chunks=10)

    with working(mortal, handle, concurrency=2):
        for least in (5, 25):
            until(lambda least=least: len(reports) >= least)  # type: ignore[misc]
            process.kill()
            process.start(90.0)
        until(lambda: mortal.ended(*jobs), 60)
    for job in map(mortal.now, jobs):
        assert (job.state, job.attempt, job.report_number, job.lost_leases) == (FINISHED, 1, 11, 0)
        percentages = [event.percentage for event in mortal.events(job) if event.state == PROCESSING]
        assert percentages[1:] == list(range(0, 100, 10))


def test_lost_answers_lose_no_lease_and_no_report(line: Line, owner: Owner, remote: Owner) -> None:
    """Leasing, progress and the end are each asked again, and each happened once."""
    job = owner.job()
    ready = threading.Event()

    def handle(task: Task) -> jobs_pb2.JobResult:
        assert ready.wait(20)
        line.lose_answer(b"lost progress", lambda: owner.now(job).summary == "lost progress")
        task.progress(50, summary="lost progress")
        line.lose_answer(b"lost end", lambda: owner.now(job).state == FINISHED)
        result = jobs_pb2.JobResult(chunks=3)
        result.metadata["said"] = "lost end"
        return result

    line.lose_answer(b"WorkerService/LeaseJobs", lambda: owner.now(job).state == PROCESSING)
    with working(remote, handle):
        until(lambda: line.lost == 1)
        ready.set()
        until(lambda: line.lost == 3)
        until(lambda: owner.ended(job))
    done = owner.now(job)
    assert (done.state, done.attempt, done.report_number, done.result.chunks) == (FINISHED, 1, 2, 3)
    assert len(owner.events(job)) == 4


def test_end_of_the_work_is_reported_until_it_is_heard(line: Line, owner: Owner, remote: Owner) -> None:
    """A handler that ends while the service cannot be reached has done its job all the same, once."""
    job = owner.job()

    def handle(task: Task) -> jobs_pb2.JobResult:
        line.refuse()
        line.cut()
        # Longer than the channel itself goes on trying.
        threading.Timer(5.0, line.refuse, kwargs={"refusing": False}).start()
        return jobs_pb2.JobResult(chunks=3)

    with working(remote, handle):
        until(lambda: owner.ended(job))
    done = owner.now(job)
    assert (done.state, done.attempt, done.report_number, done.result.chunks) == (FINISHED, 1, 1, 3)


def test_worker_registers_when_the_service_comes(line: Line, owner: Owner, remote: Owner) -> None:
    """A worker that is started before its service waits for it, and then does its jobs."""
    job = owner.job()
    line.refuse()
    with working(remote, lambda _: None) as worker:
        threading.Timer(2.0, line.refuse, kwargs={"refusing": False}).start()
        assert worker.id == ""
        until(lambda: owner.ended(job))
    assert owner.now(job).state == FINISHED


def test_worker_that_is_cut_off_stops_its_work_in_time(line: Line, owner: Owner, remote: Owner) -> None:
    """When the lease cannot be renewed the handler is told, before the service says anything."""
    job, busy = owner.job(), Busy()
    with working(remote, busy, lease_duration=2.0):
        assert busy.started.wait(20)
        line.refuse()
        line.cut()
        until(lambda: busy.told)
        line.refuse(refusing=False)
    assert busy.told == [LeaseLost]
    assert owner.now(job).report_number == 0


def test_worker_ends_when_its_key_is_revoked(owner: Owner, user: User) -> None:
    """Its handler is told to stop, and the worker ends with the service's refusal."""
    owner.job()
    busy, ends = Busy(), list[str]()

    def run() -> None:
        try:
            worker.run()
        except grpc.RpcError as error:
            ends.append(refusal_of(error).reason)

    with connect(owner.target, owner.key) as channel:
        worker = Worker(channel, busy, lease_duration=2.0, grace=0.0)
        thread = threading.Thread(target=run)
        thread.start()
        assert busy.started.wait(20)
        user.channel.api_keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(id=user.key_id))
        thread.join(30)
    assert busy.told == [LeaseLost]
    assert ends == ["CREDENTIAL_INVALID"]


def test_stopped_worker_gives_back_what_was_just_leased(line: Line, owner: Owner, remote: Owner) -> None:
    """A lease whose answer was still on its way when the worker stopped is not left to expire."""
    worker = Worker(remote.channel, lambda _: None, grace=0.0)
    thread = threading.Thread(target=worker.run)
    held = threading.Event()

    def stopped() -> bool:
        held.set()
        return worker.id != "" and owner.now(job).state == PROCESSING

    job = owner.job()
    line.lose_answer(b"WorkerService/LeaseJobs", stopped)
    thread.start()
    assert held.wait(20)
    worker.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert owner.now(job).state in (PENDING, FINISHED)
