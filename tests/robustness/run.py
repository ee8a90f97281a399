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

BESIDE = (
    "cut-clients",
    "delay-clients",
    "blackhole-clients",
    "delay-database",
    "stop-reading",
    "pause-workers",
)
"""Faults that can happen beside any other; none that starts workers, as they end with the thread that did."""
_TOGETHER = 0.4
"""How often another fault happens beside one: in a long run, once each has happened alone."""
_DRAIN = 60.0
_SETTLE = 60.0
_STANDSTILL = 30.0
"""Seconds after which a fault happens although nothing else does."""


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

    @property
    def quiet(self) -> int:
        """How many events there are between two faults: half of all, where each fault happens once."""
        return self.events // (2 * max(len(self.failpoints), 1))


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
    problems: list[Violation] = []
    with cluster(plan.kind, folder, servers=plan.servers, fronts=fronts, back=back) as made:
        traffic = Traffic(made, plan.seed, folder, plan.sizes)
        try:
            begun = time.time()
            traffic.start()
            chance = random.Random(plan.seed)  # noqa: S311 - which way a run goes
            scene = Scene(made, list(traffic.crews), chance, traffic.reading, plan.long)
            _disturb(plan, scene, traffic, history, problems)
            ended = time.time()
            made.heal()
            drain = _drain(made, traffic, problems)
        finally:
            traffic.stop()
        add(history, made.tables())
        traffic.write_down(history)
    figures = measure(history, (begun, ended + drain), traffic.steady)
    figures.drained.append(drain)
    figures.ended.extend(scene.drains)
    begun = time.time()
    found = judge(history)
    figures.judged.append(time.time() - begun)
    return Outcome(history, figures, [*problems, *found])


def _disturb(plan: Plan, scene: Scene, traffic: Traffic, history: History, problems: list[Violation]) -> None:
    """Do one fault after the other until enough has happened; each is done once at least."""
    wanted = {failpoint.name for failpoint in plan.failpoints}
    for failpoint in _order(plan.failpoints, scene.chance):
        position = _pass(scene, traffic, plan.quiet)
        if position >= plan.events and {fault.name for fault in history.faults} >= wanted:
            break
        if failpoint is None:
            continue
        plan.say(f"{failpoint.name} at event {position}")
        alone = plan.long and not {fault.name for fault in history.faults} >= wanted
        _do([failpoint, *([] if alone else _beside(plan, failpoint, scene))], scene, history, problems)


def _beside(plan: Plan, failpoint: Failpoint, scene: Scene) -> list[Failpoint]:
    """Choose what happens at the same time as a fault, if anything does."""
    beside = [f for f in plan.failpoints if f.name in BESIDE and f is not failpoint]
    return [scene.chance.choice(beside)] if beside and scene.chance.random() < _TOGETHER else []


def _do(failpoints: Sequence[Failpoint], scene: Scene, history: History, problems: list[Violation]) -> None:
    """Do faults at the same time: the first in this thread, which processes are tied to."""

    def do(failpoint: Failpoint) -> None:
        begin = time.time()
        try:
            failpoint.run(scene)
        except Exception as error:  # noqa: BLE001 - whatever keeps a fault from being over is told
            problems.append(Violation("Recovery", f"after {failpoint.name}: {error!r}"[:2000]))
        history.faults.append(Fault(failpoint.name, begin, time.time()))

    others = [threading.Thread(target=do, args=(failpoint,)) for failpoint in failpoints[1:]]
    before = len(problems)
    for other in others:
        other.start()
    do(failpoints[0])
    for other in others:
        other.join()
    if len(problems) > before:
        scene.cluster.heal()


def _order(failpoints: Sequence[Failpoint], chance: random.Random) -> Iterator[Failpoint | None]:
    once = list(failpoints)
    chance.shuffle(once)
    yield from once
    while True:
        yield chance.choice(failpoints) if failpoints else None


def _pass(scene: Scene, traffic: Traffic, events: int) -> int:
    """Let events happen, with no more jobs waiting than can be worked on; give how many there were ever."""
    begin = time.monotonic()
    least, most = begin + scene.chance.uniform(0.3, 1.0), begin + _STANDSTILL
    first, _, _ = scene.cluster.progress()
    while True:
        position, _, opened = scene.cluster.progress()
        traffic.hold(opened)
        now = time.monotonic()
        if now > most or (now > least and position >= first + events):
            return position
        time.sleep(0.1)


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
