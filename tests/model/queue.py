"""The model of the queue: which jobs a worker is given, and whose turn comes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice, zip_longest
from typing import Final

from tests.model.things import Job
from tests.model.world import World

_FEW: Final = 8
"""Of more owners than these each has one turn in a call."""


def next_of(world: World, ready: Sequence[Job], most: int, *, of_everyone: bool) -> list[Job]:
    """Give at most so many of the jobs that are ready: by priority, in turn where they are of everybody."""
    by_age = sorted(ready, key=lambda job: (-job.priority, job.made))
    return list(islice(_in_turn(world, by_age), most)) if of_everyone else by_age[:most]


def _in_turn(world: World, by_age: Sequence[Job]) -> Iterator[Job]:
    for priority, jobs in groupby(by_age, lambda job: job.priority):
        owners: dict[str, list[Job]] = {}
        for job in jobs:
            owners.setdefault(job.owner, []).append(job)
        waiting = sorted(owners, key=lambda owner: _since(world, owner, priority, owners[owner][0]))
        if len(waiting) > _FEW:
            yield from (owners[owner][0] for owner in waiting)
            return
        for turn in zip_longest(*(owners[owner] for owner in waiting)):
            yield from (job for job in turn if job is not None)


def _since(world: World, owner: str, priority: int, oldest: Job) -> float:
    """Say since when an owner waits: since the last turn, or since the oldest job was ready."""
    return max(world.turns.get((owner, priority), 0.0), oldest.made)


def note_turns(world: World, leased: Sequence[Job], step: int) -> None:
    """Let the owners of jobs that were leased, in this order, wait from now."""
    for place, job in enumerate(leased):
        world.turns[job.owner, job.priority] = step + place / 1000
