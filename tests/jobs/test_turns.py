"""How long the owners of jobs wait for each other's turns, over random histories of a queue."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta.jobs.actions import Plan
from tests.jobs.queued import OWNERS, Queue

SERVED, UNSERVED = "X", "Z"
LATER = Plan(not_before=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))


class Turns:
    """Counts how many turns others had since an owner began to wait, or had the last one."""

    def __init__(self, queue: Queue) -> None:
        self.waiting: Counter[int] = Counter()
        self._queue = queue
        self._passed: dict[int, Counter[int]] = {}
        self._running: list[tuple[int, str]] = []
        self._returned: set[str] = set()

    def create(self, owner: int) -> None:
        """Make a job."""
        self._queue.create(owner)
        self._wait(owner)

    def give_back(self) -> None:
        """Give the longest running job back."""
        if self._running:
            owner, job_id = self._running.pop(0)
            self._queue.give_back(job_id)
            self._returned.add(job_id)
            self._wait(owner)

    def lease(self) -> None:
        """Lease the next job; it is somebody's who was not served twice while another waited."""
        leased = self._queue.lease_next()
        assert (leased is None) == (not +self.waiting)
        if leased is None:
            return
        owner, job_id = leased
        self._running.append(leased)
        self.waiting[owner] -= 1
        del self._passed[owner]
        if self.waiting[owner]:
            self._passed[owner] = Counter()
        if job_id not in self._returned:
            for passed in self._passed.values():
                passed[owner] += 1
                assert max(passed.values()) <= 2

    def _wait(self, owner: int) -> None:
        self.waiting[owner] += 1
        self._passed.setdefault(owner, Counter())


_DEEDS = st.lists(st.one_of(st.integers(0, OWNERS - 1), st.sampled_from(["lease", "back"])), max_size=60)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_DEEDS)
def test_nobody_is_passed_by_again_and_again(queue: Queue, deeds: list[Any]) -> None:
    """While an owner waits no other has more than two turns, but for jobs that come back."""
    queue.clear()
    turns = Turns(queue)
    for deed in deeds:
        if deed == "lease":
            turns.lease()
        elif deed == "back":
            turns.give_back()
        else:
            turns.create(deed)
    for _ in range(sum(turns.waiting.values()) + 1):
        turns.lease()

    assert not +turns.waiting


@dataclass
class Waiting:
    """A waiting job, and what others had while it could have been leased."""

    owner: int
    place: int
    """The how manieth of its owner it is since nothing of that owner waited."""
    ready: bool
    served: bool = True
    passed: Counter[int] = field(default_factory=Counter)


class Runs:
    """The simple model: a job of an owner of whom nothing waited is passed by once by anybody else."""

    def __init__(self, queue: Queue) -> None:
        self.jobs: dict[str, Waiting] = {}
        self._queue = queue
        self._places: Counter[int] = Counter()
        self._running: list[tuple[int, str]] = []
        self._returned: set[str] = set()

    def create(self, owner: int, *, delayed: bool = False, served: bool = True) -> None:
        """Make a job: to be leased now, delayed, or one of a kind that nobody takes."""
        plan = LATER if delayed else Plan()
        job_id = self._queue.create(owner, kind=SERVED if served else UNSERVED, plan=plan)
        self.jobs[job_id] = Waiting(owner, self._next_place(owner), not delayed, served)

    def come(self, owner: int) -> None:
        """Let the time come of an owner's delayed jobs."""
        self._queue.come(owner)
        for job in self.jobs.values():
            job.ready |= job.owner == owner

    def give_back(self) -> None:
        """Give the longest running job back."""
        if self._running:
            owner, job_id = self._running.pop(0)
            self._queue.give_back(job_id)
            self._returned.add(job_id)
            self._next_place(owner)
            self.jobs[job_id] = Waiting(owner, 1, ready=True)

    def lease(self) -> bool:
        """Lease the next job; whoever could have been leased was passed by no oftener than is right."""
        leased = self._queue.lease_next(SERVED)
        waiting = [job for job in self.jobs.values() if job.ready and job.served]
        assert (leased is None) == (not waiting)
        if leased is None:
            return False
        self._running.append(leased)
        owner, job_id = leased
        del self.jobs[job_id]
        if job_id not in self._returned:
            for job in waiting:
                job.passed[owner] += 1
        for job in self.jobs.values():
            if job.place == 1:
                assert all(count <= 1 for other, count in job.passed.items() if other != job.owner)
        return True

    def _next_place(self, owner: int) -> int:
        if all(job.owner != owner for job in self.jobs.values()):
            self._places[owner] = 0
        self._places[owner] += 1
        return self._places[owner]


_DEED = st.sampled_from(["ready"] * 4 + ["delayed", "unserved", "come", "lease", "lease", "lease", "back"])
_FEW_OWNERS = st.integers(0, 2)  # so that each has many


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_DEED, _FEW_OWNERS), min_size=15, max_size=40))
def test_the_job_of_an_owner_of_whom_nothing_waited_waits_for_one_turn_of_each_other(
    queue: Queue, deeds: list[tuple[str, int]]
) -> None:
    """Whatever stands before it, and whether that can be leased or not, as often as owners take turns."""
    queue.clear()
    runs = Runs(queue)
    for deed, owner in deeds:
        match deed:
            case "lease":
                runs.lease()
            case "back":
                runs.give_back()
            case "come":
                runs.come(owner)
            case _:
                runs.create(owner, delayed=deed == "delayed", served=deed != "unserved")
    while runs.lease():
        pass


def test_many_jobs_that_nobody_can_lease_hold_up_no_others_one(queue: Queue) -> None:
    """A job of an owner of whom nothing waits is the next, before and after hundreds of delayed ones come."""
    for number in range(150):
        queue.create(0, plan=LATER)
        queue.create(1, kind=UNSERVED)
        if number < 30:
            queue.create(2)
    for _ in range(20):
        queue.lease_next(SERVED)
    first = queue.create(3)
    assert (3, first) in [queue.lease_next(SERVED) for _ in range(2)]

    second = queue.create(3)
    queue.come(0)
    assert (3, second) in [queue.lease_next(SERVED) for _ in range(3)]


def test_who_comes_later_catches_up_with_the_turns_that_were_had_meanwhile(queue: Queue) -> None:
    """The bound is met: beside what stays first, an owner's tenth job waits for nine turns of another."""
    queue.create(0, kind=UNSERVED)
    for _ in range(10):
        queue.create(1)
    for _ in range(9):
        assert queue.lease_next(SERVED)
    for _ in range(30):
        queue.create(2)

    leased: list[Any] = [queue.lease_next(SERVED) for _ in range(11)]
    assert [owner for owner, _ in leased].index(1) == 9
