"""Everybody who calls in a run: writers, workers in their processes, and watchers of every habit."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path

from moragmeta.v1 import workers_pb2
from tests.robustness.callers import Caller
from tests.robustness.cluster import Cluster
from tests.robustness.crew import CrewProcess
from tests.robustness.history import Filter, History, add
from tests.robustness.recorder import Recorder
from tests.robustness.watchers import Habit, JobWatcher, Watcher
from tests.robustness.writers import Writer

_WATCHES_ONE = 3
Client = Writer | Watcher | JobWatcher


class Traffic:
    """The clients of one run."""

    def __init__(self, cluster: Cluster, seed: int, folder: Path, sizes: tuple[int, int, int]) -> None:
        """Prepare so many writers, workers and watchers."""
        self._cluster = cluster
        self._recorder = Recorder()
        self._flowing = threading.Event()
        self.reading = threading.Event()
        """While it is not set, some of the watchers read nothing."""
        self.reading.set()
        self._threads: list[threading.Thread] = []
        made: deque[tuple[str, str, str]] = deque(maxlen=200)
        writers, workers, watchers = sizes
        tenants, targets = cluster.tenants, cluster.targets
        given = (targets, self._recorder, seed)
        self.writers = [
            Writer(
                f"writer{number}",
                targets,
                tenants[number % len(tenants)].key,
                self._recorder,
                seed,
                flowing=self._flowing,
                made=made,
            )
            for number in range(writers)
        ]
        self._known = self._register()
        self.watchers = [
            Watcher(f"watcher{number}", targets, key, self._recorder, seed, habit, self.reading)
            for number, (key, habit) in enumerate(self._habits(watchers - _WATCHES_ONE))
        ]
        self.job_watchers = [JobWatcher(f"one{number}", *given, made) for number in range(_WATCHES_ONE)]
        keys = [cluster.admin.key, *(tenant.key for tenant in tenants)]
        mine = [keys[number % len(keys)] for number in range(workers)]
        halves = [mine[::2], mine[1::2]]
        known = [self._known, ""]
        self._orders = [
            (f"crew{number}", folder, targets, half, seed, known[number])
            for number, half in enumerate(halves)
        ]
        self.crews: list[CrewProcess] = []

    def _register(self) -> str:
        """Make the worker that some watch."""
        caller = Caller("register", self._cluster.targets, self._cluster.admin.key, self._recorder, "0")
        worker = workers_pb2.Worker(name="watched")
        made = caller.call("RegisterWorker", workers_pb2.RegisterWorkerRequest(worker=worker))
        caller.close()
        return str(made.id)

    def _habits(self, count: int) -> list[tuple[str, Habit]]:
        """Give keys and habits: every one at least once, if there are enough watchers."""
        admin, tenants = self._cluster.admin, self._cluster.tenants
        known = [
            (admin.key, Habit(Filter(), restless=False)),
            (admin.key, Habit(Filter())),
            (admin.key, Habit(Filter(), restless=False, stops=True)),
            (tenants[0].key, Habit(Filter(owner_id=tenants[0].id))),
            (tenants[1].key, Habit(Filter(owner_id=tenants[1].id), snapshot=True)),
            (admin.key, Habit(Filter(states=("PROCESSING",)))),
            (admin.key, Habit(Filter(states=("FINISHED", "FAILED", "CANCELLED")), snapshot=True)),
            (admin.key, Habit(Filter(states=("PENDING",)), snapshot=True, away=6)),
            (admin.key, Habit(Filter(kinds=("REINDEX",)), pause=0.003)),
            (admin.key, Habit(Filter(document_types=("pdf", "mp3")))),
            (admin.key, Habit(Filter(), conflate=True)),
            (admin.key, Habit(Filter(worker_ids=(self._known,)))),
            (tenants[2].key, Habit(Filter(owner_id=tenants[2].id, kinds=("INGESTION",)), snapshot=True)),
            (admin.key, Habit(Filter(kinds=("EXPORT",), states=("PENDING", "PROCESSING")))),
            (tenants[0].key, Habit(Filter(owner_id=tenants[0].id, states=("FAILED",)), conflate=True)),
            (admin.key, Habit(Filter(document_types=("txt",), kinds=("INGESTION",)), snapshot=True)),
            (admin.key, Habit(Filter(states=("CANCELLED",)), restless=False)),
        ]
        return [known[number % len(known)] for number in range(count)]

    @property
    def _clients(self) -> list[Client]:
        return [*self.writers, *self.watchers, *self.job_watchers]

    @property
    def steady(self) -> set[str]:
        """The names of those whose delays say something of the service: they read at once, and stay."""
        return {watcher.caller.name for watcher in self.watchers if watcher.steady}

    def start(self) -> None:
        """Begin: those who watch first, so that they see everything."""
        for watcher in self.watchers:
            self._run(watcher)
        limit = time.monotonic() + 10
        for watcher in self.watchers:
            watcher.opened.wait(max(limit - time.monotonic(), 0))
        self._flowing.set()
        self.crews = [CrewProcess(*orders) for orders in self._orders]
        for writer in self.writers:
            self._run(writer)
        for one in self.job_watchers:
            self._run(one)

    def _run(self, client: Client) -> None:
        thread = threading.Thread(target=client.work, name=client.caller.name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def hold(self, open_jobs: int, most: int = 150) -> None:
        """Let the writers rest while more jobs wait than the workers can take."""
        if open_jobs > most:
            self._flowing.clear()
        else:
            self._flowing.set()

    def stop_writing(self) -> None:
        """Have no more jobs made."""
        for writer in self.writers:
            writer.caller.stop.set()

    def settle(self, patience: float) -> list[str]:
        """Wait until every watcher has seen everything; name those that did not."""
        for watcher in self.watchers:
            watcher.settled.set()
        limit = time.monotonic() + patience
        for watcher in self.watchers:
            watcher.done.wait(max(limit - time.monotonic(), 0))
        return [watcher.caller.name for watcher in self.watchers if not watcher.done.is_set()]

    def stop(self) -> None:
        """End everybody."""
        for client in self._clients:
            client.caller.stop.set()
        for crew in self.crews:
            crew.stop()
        for thread in self._threads:
            thread.join(10)
        for client in self._clients:
            client.caller.close()

    def write_down(self, history: History) -> None:
        """Add to a history what everybody recorded."""
        add(history, self._recorder.records)
        for crew in self.crews:
            add(history, crew.records())
