"""How long the owners of jobs wait for each other's turns, over random histories of a queue."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta.jobs.actions import Plan
from tests.jobs.queued import OWNERS, Queue

SERVED, UNSERVED = "X", "Z"
LATER = Plan(not_before=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))


@dataclass
class Waiting:
    """A waiting job, and how many turns others had while it could have been leased."""

    owner: int
    ready: bool
    served: bool
    passed: Counter[int] = field(default_factory=Counter)


class Rounds:
    """The rule: while a job waits that could be leased, no other owner has a second turn before its owner."""

    def __init__(self, queue: Queue) -> None:
        self.jobs: dict[str, Waiting] = {}
        self._queue = queue
        self._running: list[tuple[int, str]] = []

    def create(self, owner: int, *, delayed: bool = False, served: bool = True) -> None:
        """Make a job: to be leased now, delayed, or one of a kind that nobody takes."""
        plan = LATER if delayed else Plan()
        job_id = self._queue.create(owner, kind=SERVED if served else UNSERVED, plan=plan)
        self.jobs[job_id] = Waiting(owner, not delayed, served)

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
            self.jobs[job_id] = Waiting(owner, ready=True, served=True)

    def lease(self) -> bool:
        """Lease the next job; nobody who could have had this turn was passed by before by its owner."""
        leased = self._queue.lease_next(SERVED)
        waiting = [job for job in self.jobs.values() if job.ready and job.served]
        assert (leased is None) == (not waiting)
        if leased is None:
            return False
        self._running.append(leased)
        owner, job_id = leased
        del self.jobs[job_id]
        for job in waiting:
            if job.owner == owner:
                job.passed.clear()
            else:
                job.passed[owner] += 1
                assert job.passed[owner] <= 1
        return True


_DEED = st.sampled_from(["ready"] * 4 + ["delayed", "unserved", "come", "lease", "lease", "lease", "back"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_DEED, st.integers(0, OWNERS - 1)), min_size=10, max_size=50))
def test_whoever_waits_is_passed_by_once_at_most_by_each_other_owner(
    queue: Queue, deeds: list[tuple[str, int]]
) -> None:
    """However many jobs each has, whatever stands before them, and whatever comes back."""
    queue.clear()
    rounds = Rounds(queue)
    for deed, owner in deeds:
        match deed:
            case "lease":
                rounds.lease()
            case "back":
                rounds.give_back()
            case "come":
                rounds.come(owner)
            case _:
                rounds.create(owner, delayed=deed == "delayed", served=deed != "unserved")
    while rounds.lease():
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


def test_who_makes_jobs_one_by_one_does_not_pass_who_waits(queue: Queue) -> None:
    """Beside a job that stays first, an owner with a new job after each turn takes turns with a backlog."""
    queue.create(0, kind=UNSERVED)
    for _ in range(10):
        queue.create(1)
    leased = []
    for _ in range(10):
        queue.create(2)
        leased += [queue.lease_next(SERVED), queue.lease_next(SERVED)]

    assert [owner for owner, _ in filter(None, leased)] == [1, 2] * 10
