"""A watcher that stays away while an hour's events happen, and comes back with the token it left with."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.robustness.cluster import Cluster, cluster
from tests.robustness.history import Filter, History, add
from tests.robustness.recorder import Recorder
from tests.robustness.traffic import Traffic
from tests.robustness.validators import judge
from tests.robustness.violations import Violation
from tests.robustness.watchers import Habit, Watcher

_PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Return:
    """What came of it."""

    events: int
    """How many had happened meanwhile."""
    seconds: float
    """From the opening of the stream to the frame that says that nothing is left."""
    violations: list[Violation]
    history: History

    def __str__(self) -> str:
        """Show the figures."""
        rate = self.events / max(self.seconds, 0.001)
        return (
            f"resumed {self.events} events later (an hour at {self.events / 3600:.1f}/s) "
            f"in {self.seconds:.2f} s ({rate:.0f}/s), each seen once"
        )


def come_back(kind: str, folder: Path, events: int, seed: int) -> Return:
    """Have so many events happen behind a watcher's back, and take the time that it then needs."""
    history = History(seed=seed, database=kind)
    recorder = Recorder()
    with cluster(kind, folder, servers=3, fronts=False, back=False) as made:
        watcher = Watcher(
            "away", made.targets, made.admin.key, recorder, seed, Habit(Filter(), restless=False)
        )
        watcher.look()
        _let_happen(made, folder, events, seed, history)
        watcher.settled.set()
        begun = time.monotonic()
        thread = threading.Thread(target=watcher.work, daemon=True)
        thread.start()
        done = watcher.done.wait(_PATIENCE)
        seconds = time.monotonic() - begun
        watcher.caller.stop.set()
        thread.join(10)
        watcher.caller.close()
        add(history, made.tables())
    add(history, recorder.records)
    found = judge(history)
    if not done:
        found.append(Violation("Alive", "who came back never heard that it had seen everything"))
    told = [frame.event for frame in history.frames if frame.watcher == watcher.caller.name]
    seen = Counter((event.job_id, event.number) for event in told if event is not None)
    if seen != Counter((event.job_id, event.number) for event in history.events):
        found.append(Violation("Resumable", "who came back did not see every event once"))
    return Return(len(history.events), seconds, found, history)


def _let_happen(made: Cluster, folder: Path, events: int, seed: int, history: History) -> None:
    """Have writers and workers make so many events, and end all jobs."""
    traffic = Traffic(made, seed, folder, (16, 8, 0))
    try:
        traffic.start()
        while made.progress()[0] < events:
            traffic.hold(made.progress()[2])
            time.sleep(0.1)
        traffic.stop_writing()
        limit = time.monotonic() + 60
        while any(made.progress()[1:]) and time.monotonic() < limit:
            time.sleep(0.1)
    finally:
        traffic.stop()
    traffic.write_down(history)
