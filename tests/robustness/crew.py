"""A process full of workers, so that they can be killed and frozen: ``python -m tests.robustness.crew``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.backends.daemon import dies_with_us
from tests.robustness.history import Record, read_lines
from tests.robustness.recorder import Recorder
from tests.robustness.workers import Worker

_ROOT = Path(__file__).parents[2]


class CrewProcess:
    """One such process, and those that took its place after it was killed."""

    def __init__(
        self, name: str, folder: Path, targets: Sequence[str], keys: Sequence[str], seed: int, known: str
    ) -> None:
        """Start as many workers as there are keys, from a thread that lives as long as they do.

        The first of them is the worker whose id is ``known``, unless that is empty.
        """
        self._name = name
        self._folder = folder
        self._orders = {"targets": list(targets), "keys": list(keys), "seed": seed, "known": known}
        self._files: list[Path] = []
        self._start()

    def _start(self) -> None:
        name = f"{self._name}{len(self._files)}"
        self._files.append(self._folder / f"{name}.jsonl")
        self._files[-1].touch()
        orders = json.dumps(self._orders | {"name": name, "path": str(self._files[-1])})
        command = [sys.executable, "-m", "tests.robustness.crew", orders]
        self._process = subprocess.Popen([*dies_with_us(signal.SIGKILL), *command], cwd=_ROOT)

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def restart(self) -> None:
        """Make sure that the process is over, and start another."""
        self._process.kill()
        self._process.wait()
        self._start()

    def stop(self, seconds: float = 20) -> None:
        """End it in order, if it can be."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def records(self) -> list[Record]:
        """Give what all of its workers wrote down."""
        return [record for path in self._files for record in read_lines(path)]


def main(orders: dict[str, Any]) -> None:
    """Work until SIGTERM."""
    recorder = Recorder(Path(orders["path"]))
    workers = [
        Worker(f"{orders['name']}/{number}", orders["targets"], key, recorder, orders["seed"])
        for number, key in enumerate(orders["keys"])
    ]
    workers[0].known = orders["known"]
    threads = [threading.Thread(target=worker.work, daemon=True) for worker in workers]
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    for thread in threads:
        thread.start()
    while not ended.wait(0.2):
        pass
    for worker in workers:
        worker.caller.stop.set()
    for thread in threads:
        thread.join(10)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
