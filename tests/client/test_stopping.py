"""How a worker stops: what it finishes, what it gives back, and that it always ends."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from morag_client import (
    GiveBack,
    JobStopped,
    Task,
    Worker,
    WorkerStopping,
    connect,
    stop_on_signals,
)
from tests.client.conftest import Line, Owner, until
from tests.client.test_worker import FINISHED, PENDING, Busy, working


def test_stopped_worker_gives_its_job_back(owner: Owner) -> None:
    """The job can be leased again at once, with what the handler saved, and no attempt was lost."""
    job, busy = owner.job(), Busy()
    with working(owner, busy):
        assert busy.started.wait(20)
        busy.tasks[0].save(b"page 7")
    assert busy.told == [WorkerStopping]
    assert (owner.now(job).state, owner.now(job).lost_leases) == (PENDING, 0)
    seen: list[bytes] = []
    with working(owner, lambda task: seen.append(task.checkpoint)):
        until(lambda: owner.ended(job))
    assert seen == [b"page 7"]
    assert owner.now(job).attempt == 2


def test_stopped_worker_lets_handlers_finish(owner: Owner) -> None:
    """Within the grace a job is done as if nobody had asked to stop, and no other is begun."""
    first, started, go = owner.job(), threading.Event(), threading.Event()

    def handle(task: Task) -> None:
        started.set()
        assert go.wait(20)
        task.progress(50)

    with working(owner, handle, grace=20.0) as worker:
        assert started.wait(20)
        second = owner.job()
        worker.stop()
        go.set()
    assert (owner.now(first).state, owner.now(second).state) == (FINISHED, PENDING)


def test_handler_may_give_its_job_back(owner: Owner) -> None:
    """GiveBack lets the next attempt do it."""
    job = owner.job()

    def handle(task: Task) -> None:
        if task.job.attempt == 1:
            raise GiveBack("not now")

    with working(owner, handle):
        until(lambda: owner.ended(job))
    assert (owner.now(job).state, owner.now(job).attempt) == (FINISHED, 2)
    assert "not now" in [event.summary for event in owner.events(job)]


def test_handler_that_hides_why_it_stopped_does_not_fail_its_job(owner: Owner) -> None:
    """An error that follows from the stop is no failure of the job: it is given back."""
    job, started = owner.job(), threading.Event()

    def handle(task: Task) -> None:
        started.set()
        try:
            task.rest(60.0)
        except JobStopped:
            raise RuntimeError("half done") from None

    with working(owner, handle):
        assert started.wait(20)
    assert (owner.now(job).state, owner.now(job).error) == (PENDING, "")


def test_handler_that_does_not_look_up_holds_nobody_up(owner: Owner) -> None:
    """Its job is given back in its absence, and nothing that it says later is reported."""
    job, started, go = owner.job(), threading.Event(), threading.Event()
    ended: list[bool] = []

    def handle(task: Task) -> None:
        started.set()
        go.wait(60)
        ended.append(task.cancelled)

    with working(owner, handle):
        assert started.wait(20)
    assert owner.now(job).state == PENDING
    go.set()
    until(lambda: ended)
    assert ended == [True]
    assert owner.now(job).state == PENDING


def test_job_that_is_gone_cannot_be_given_back(owner: Owner) -> None:
    """Who gives back what is no longer theirs changes nothing, and the worker goes on."""
    first = owner.job()

    def handle(task: Task) -> None:
        if task.job.id == first.id and task.job.attempt == 1:
            owner.cancel(first)
            raise GiveBack("too late")

    with working(owner, handle):
        until(lambda: owner.ended(first))
        second = owner.job()
        until(lambda: owner.ended(second))
    assert (owner.now(first).summary, owner.now(second).state) == ("not wanted", FINISHED)


def test_worker_stops_where_nobody_answers(line: Line, owner: Owner) -> None:
    """It ends while the service cannot be reached, and while it is silent."""
    line.refuse()
    with connect(line.target, owner.key) as channel:
        worker = Worker(channel, lambda _: None)
        threading.Timer(0.5, worker.stop).start()
        worker.run()
        assert worker.id == ""
    line.refuse(refusing=False)
    with connect(line.target, owner.key) as channel:
        worker = Worker(channel, lambda _: None)
        thread = threading.Thread(target=worker.run)
        thread.start()
        until(lambda: worker.id)
        line.stall()
        worker.stop()
        thread.join(30)
        line.flow()
        assert not thread.is_alive()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_workers_and_is_then_as_before(owner: Owner, number: signal.Signals) -> None:
    """The first signal ends the run in peace; afterwards it does what it did before."""
    before = signal.getsignal(number)
    worker = Worker(owner.channel, lambda _: None)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
    with stop_on_signals(worker):
        assert signal.getsignal(number) is not before
        timer.start()
        worker.run()
        assert signal.getsignal(number) is before
    timer.join()
    assert signal.getsignal(number) is before
    with stop_on_signals(worker):
        assert signal.getsignal(number) is not before
    assert signal.getsignal(number) is before
