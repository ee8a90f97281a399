"""One run: traffic on a cluster, faults in its midst, the drain, and what the tables then hold."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.robustness.cluster import Cluster, cluster
from tests.robustness.failpoints import Failpoint
from tests.robustness.figures import Figures, measure
from tests.robustness.history import Fault, History, add
from tests.robustness.scene import Scene
from tests.robustness.traffic import Traffic
from tests.robustness.validators import judge
from tests.robustness.violations import Violation

_BESIDE = ("cut-clients", "delay-clients", "blackhole-clients", "pause-workers")
"""Faults that can happen beside any other."""
_DRAIN = 60.0
_SETTLE = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    kind: str
    events: int
    seed: int
    failpoints: Sequence[Failpoint]
    servers: int = 3
    sizes: tuple[int, int, int] = (16, 8, 20)
    """How many writers, workers and watchers."""
    long: bool = False
    say: Callable[[str], None] = field(default=lambda _: None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    history: History
    figures: Figures
    violations: list[Violation]


def run(plan: Plan, folder: Path) -> Outcome:
    """Run a plan; call it from the main thread, which the database's server is tied to."""
    fronts = any(failpoint.front for failpoint in plan.failpoints)
    back = any(failpoint.back for failpoint in plan.failpoints)
    history = History(seed=plan.seed, database=plan.kind)
    with cluster(plan.kind, folder, servers=plan.servers, fronts=fronts, back=back) as made:
        traffic = Traffic(made, plan.seed, folder, plan.sizes)
        try:
            begun = time.monotonic()
            traffic.start()
            scene = Scene(made, list(traffic.crews), random.Random(plan.seed), plan.long)  # noqa: S311
            problems = _disturb(plan, scene, traffic, history)
            busy = time.monotonic() - begun
            made.heal()
            drain = _drain(made, traffic, problems)
        finally:
            traffic.stop()
        add(history, made.tables())
        traffic.write_down(history)
    return Outcome(history, measure(history, busy, drain, traffic.steady), [*problems, *judge(history)])


def _disturb(plan: Plan, scene: Scene, traffic: Traffic, history: History) -> list[Violation]:
    """Do one fault after the other until enough has happened; each is done once at least."""
    problems: list[Violation] = []
    for failpoint in _order(plan.failpoints, scene.chance):
        _pass(scene, traffic, scene.chance.uniform(0.3, 1.0))
        position, _, _ = scene.cluster.progress()
        done = {fault.name for fault in history.faults} >= {f.name for f in plan.failpoints}
        if position >= plan.events and done:
            break
        if failpoint is None:
            continue
        plan.say(f"{failpoint.name} at event {position}")
        history.faults.append(Fault(failpoint.name, time.monotonic()))
        try:
            _do(failpoint, plan, scene)
        except Exception as error:  # noqa: BLE001 - whatever keeps a fault from being over is told
            problems.append(Violation("Recovery", f"after {failpoint.name}: {error!r}"[:2000]))
            scene.cluster.heal()
    return problems


def _do(failpoint: Failpoint, plan: Plan, scene: Scene) -> None:
    """Do a fault, and at times another one beside it."""
    beside = [f for f in plan.failpoints if f.name in _BESIDE and f is not failpoint]
    if not beside or scene.chance.random() > 0.25:
        failpoint.run(scene)
        return
    other = threading.Thread(target=scene.chance.choice(beside).run, args=(scene,))
    other.start()
    failpoint.run(scene)
    other.join()


def _order(failpoints: Sequence[Failpoint], chance: random.Random) -> Iterator[Failpoint | None]:
    once = list(failpoints)
    chance.shuffle(once)
    yield from once
    while True:
        yield chance.choice(failpoints) if failpoints else None


def _pass(scene: Scene, traffic: Traffic, seconds: float) -> None:
    """Let some time pass, with no more jobs waiting than can be worked on."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        _, _, opened = scene.cluster.progress()
        traffic.hold(opened)
        time.sleep(0.2)


def _drain(made: Cluster, traffic: Traffic, problems: list[Violation]) -> float:
    """Wait until all jobs have ended and watchers have seen it; give how long the jobs took."""
    traffic.stop_writing()
    begun = time.monotonic()
    while time.monotonic() - begun < _DRAIN:
        _, unnumbered, opened = made.progress()
        if not unnumbered and not opened:
            break
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    problems += [
        Violation("Alive", f"{name} never heard that it had seen everything")
        for name in traffic.settle(_SETTLE)
    ]
    return seconds
