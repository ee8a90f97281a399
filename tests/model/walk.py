"""A walk: step after step in the model and on the wire, for as long as both answer alike.

A walk that ends early can be taken again, and is made shorter for as long as it ends in the same way.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.model import accounts, credentials, documents, keys, places, quotas, reports, tasks, work
from tests.model.caller import Caller
from tests.model.choices import Choices
from tests.model.contract import METHODS
from tests.model.rows import differences
from tests.model.steps import Answer, Step
from tests.model.world import RULES, World
from tests.service import Service

# they state the rules, and what is sent
__all__ = ["accounts", "credentials", "documents", "keys", "places", "quotas", "reports", "tasks", "work"]

_ROWS_EVERY = 50
"""Steps after which the tables are looked at."""
_LABEL = re.compile(r"\b[a-z]\d+\b")


@dataclass(frozen=True)
class Divergence:
    """How the service and the model part: at the last step of a walk, or in what the tables hold after it."""

    step: Step
    model: Answer | None = None
    service: Answer | None = None
    rows: tuple[str, ...] = ()

    def is_like(self, other: Divergence | None) -> bool:
        """Whether another one is of the same kind, so that a shorter walk shows what this one did."""
        if other is None or bool(self.rows) != bool(other.rows):
            return False
        if self.rows:
            return {row.split()[0] for row in self.rows} == {row.split()[0] for row in other.rows}
        return self.kind == other.kind

    @property
    def kind(self) -> tuple[str, ...]:
        """The method, and how both sides answered it."""
        answers = [answer for answer in (self.model, self.service) if answer is not None]
        return (self.step.method, *(part for answer in answers for part in (answer.code, answer.reason)))

    def __str__(self) -> str:
        """Give it for people."""
        if self.rows:
            return "after " + str(self.step) + "".join(f"\n    {row}" for row in self.rows[:20])
        return f"{self.step}\n    model:   {self.model}\n    service: {self.service}"


@dataclass
class Walk:
    """The steps that were taken, how they ended, and how often each method was answered how."""

    steps: list[Step] = field(default_factory=list)
    divergence: Divergence | None = None
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: float = 0.0


def _take(service: Service, next_step: Callable[[World, int], Step | None]) -> Walk:
    """Walk for as long as there are steps and both sides answer alike."""
    walk, world, caller, begun = Walk(), World(service.admin.email), Caller(service), time.monotonic()
    while walk.divergence is None and (step := next_step(world, len(walk.steps) + 1)) is not None:
        walk.steps.append(step)
        expected, given = quotas.answer(world, step), caller.answer(step)
        walk.answers[step.method, given.reason or given.code] += 1
        if expected != given:
            walk.divergence = Divergence(step, expected, given)
        elif len(walk.steps) % _ROWS_EVERY == 0:
            walk.divergence = _in_rows(service, caller, world, step)
    if walk.divergence is None and walk.steps:
        walk.divergence = _in_rows(service, caller, world, walk.steps[-1])
    walk.seconds = time.monotonic() - begun
    return walk


def _in_rows(service: Service, caller: Caller, world: World, step: Step) -> Divergence | None:
    rows = differences(service, caller, world)
    return Divergence(step, rows=tuple(rows)) if rows else None


def wander(service: Service, seed: int, steps: int, seconds: float = float("inf")) -> Walk:
    """Take so many steps by a seed, or as many as there is time for, on a service that is empty."""
    choices: list[Choices] = []
    end = time.monotonic() + seconds

    def next_step(world: World, number: int) -> Step | None:
        if number > steps or time.monotonic() > end:
            return None
        if not choices:
            choices.append(Choices(seed, world))
        return choices[0].next(number)

    return _take(service, next_step)


def follow(service: Service, steps: Iterable[Step]) -> Walk:
    """Take the steps of another walk, on a service that is empty."""
    rest = iter(steps)
    return _take(service, lambda *_: next(rest, None))


def shortest(walk: Walk, again: Callable[[Sequence[Step]], Walk], most: int) -> Walk:
    """Leave out ever smaller pieces of a walk that diverged, while it still ends alike.

    ``again`` takes steps on a new service; after ``most`` times what is shortest so far is good enough.
    The walk itself is given back where it cannot be repeated.
    """
    wanted, best = walk.divergence, walk
    if wanted is None:
        return walk
    tries = 0
    for touching in (False, True):
        tries += 1
        tried = again(_needed(walk, touching=touching))
        if wanted.is_like(tried.divergence):
            best = tried
            break
    size = max(len(best.steps) // 2, 1)
    while size:
        end = len(best.steps)
        while end > 0:
            if tries >= most:
                return best
            tries += 1
            rest = [*best.steps[: max(end - size, 0)], *best.steps[end:]]
            tried = again(rest)
            if wanted.is_like(tried.divergence):
                best = tried
            end -= size
        size //= 2
    return best


def _needed(walk: Walk, *, touching: bool) -> list[Step]:
    """Give the last step, and those that made what the divergence speaks of, and what these speak of.

    With ``touching`` also those that are about any of it.
    """
    wanted = _labels(str(walk.divergence))
    chosen = {walk.steps[-1].number}
    if touching:
        chosen |= {step.number for step in walk.steps if wanted & _labels(json.dumps(step.given))}
        wanted |= _labels(" ".join(str(step) for step in walk.steps if step.number in chosen))
    for step in reversed(walk.steps):
        if wanted.intersection(step.all_made):
            chosen.add(step.number)
            wanted |= _labels(str(step))
    return [step for step in walk.steps if step.number in chosen]


def _labels(text: str) -> set[str]:
    return set(_LABEL.findall(text))


def unwalked() -> set[str]:
    """Give the methods of the contract that no walk calls."""
    return set(METHODS) - set(RULES)
