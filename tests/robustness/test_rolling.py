"""A rolling restart under fifty watchers: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from pathlib import Path

import pytest

from tests.backends.databases import chosen_kinds
from tests.robustness.case import Case
from tests.robustness.cluster import Cluster, cluster
from tests.robustness.history import Event, Filter, History, add
from tests.robustness.recorder import Recorder
from tests.robustness.streams import STREAMS
from tests.robustness.violations import shown
from tests.robustness.watchers import Habit, Watcher
from tests.robustness.writers import Writer

WATCHERS = 50
_LONGEST_WAIT = 2.5


def _watchers(made: Cluster, recorder: Recorder) -> list[Watcher]:
    return [
        Watcher(
            f"watcher{number}",
            made.targets,
            made.admin.key,
            recorder,
            number,
            Habit(Filter(), restless=False),
        )
        for number in range(WATCHERS)
    ]


def _restart_under(made: Cluster, watchers: list[Watcher], recorder: Recorder) -> list[int]:
    """Restart every server in turn while jobs are made; give their exit codes."""
    flowing = threading.Event()
    flowing.set()
    key = made.tenants[0].key
    writer = Writer("writer", made.targets, key, recorder, 1, flowing=flowing, made=deque(maxlen=9))
    clients: list[Watcher | Writer] = [*watchers, writer]
    threads = [threading.Thread(target=client.work, daemon=True) for client in clients]
    for thread in threads[:-1]:
        thread.start()
    for watcher in watchers:
        assert watcher.opened.wait(20)
    threads[-1].start()
    codes = []
    for server in made.servers:
        time.sleep(0.3)
        codes.append(server.terminate())
        server.start()
    writer.caller.stop.set()
    threads[-1].join(10)
    _come_to_rest(made)
    for watcher in watchers:
        watcher.settled.set()
    for watcher in watchers:
        watcher.done.wait(20)
        watcher.caller.stop.set()
    for client in clients:
        client.caller.close()
    return codes


def _come_to_rest(made: Cluster) -> None:
    """Return once nothing has happened for as long as a job waits for a remote worker, and a bit."""
    before, since = (-1, 0), time.monotonic()
    while time.monotonic() - since < _LONGEST_WAIT:
        position, unnumbered, _ = made.progress()
        if unnumbered or (position, unnumbered) != before:
            before, since = (position, unnumbered), time.monotonic()
        time.sleep(0.1)


@pytest.mark.parametrize("kind", chosen_kinds())
def test_a_rolling_restart_under_fifty_watchers(kind: str, tmp_path: Path) -> None:
    """Each of fifty watchers sees every event once while each server is ended with 0 and started again."""
    recorder = Recorder()
    history = History(database=kind)
    with cluster(kind, tmp_path, servers=3, fronts=False, back=False) as made:
        codes = _restart_under(made, _watchers(made, recorder), recorder)
        add(history, made.tables())
    add(history, recorder.records)
    assert codes == [0, 0, 0]
    case = Case(history)
    assert shown([violation for validator in STREAMS for violation in validator(case)]) == ""
    written: list[Event] = history.events
    counts = Counter(frame.watcher for frame in history.frames if frame.event is not None)
    assert counts == {f"watcher{number}": len(written) for number in range(WATCHERS)}
    assert len(written) > 20
