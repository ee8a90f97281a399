"""The processes of a run: the measured servers, and what the system says of a process's use of it.

What a server process holds stands in ``server.py``; databases come from the tests' throwaway servers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_READY_SECONDS = 30.0


class Served:
    """A server process and the port that it serves."""

    def __init__(self, environment: dict[str, str], address: str, *flags: str) -> None:
        """Start it and wait until it serves; its log goes to a file that is shown if it fails.

        Raises:
            RuntimeError: it ended before it served.
        """
        # The server writes its access log as under a service manager, so that its cost is in the figures.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "benchmarks.server", *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **environment, "MORAG_GRPC_ADDRESS": address},
        )
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line.strip():
            self.close()
            self._log.seek(0)
            raise RuntimeError(f"the server did not start:\n{self._log.read().decode()[-3000:]}")
        self.port = int(line)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def served(
    environment: dict[str, str],
    address: str = "127.0.0.1:0",
    *,
    shared: bool = False,
    asleep: bool = False,
    more: Iterable[str] = (),
) -> Iterator[Served]:
    """Run a server process for as long as the block; see ``server.py`` for what may be said of it."""
    flags = [f"--{name}" for name, is_set in (("shared", shared), ("asleep", asleep)) if is_set]
    process = Served(environment, address, *flags, *more)
    try:
        yield process
    finally:
        process.close()


def children(parent: int) -> list[int]:
    """Give the processes that a process has started, such as PostgreSQL's backends."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything, so the fields are counted from its end.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """Give the processor time that each of these processes has used, in seconds; ended ones are left out."""
    used = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # a database ends processes of its own when it likes
            tasks = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
            used[pid] = sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    return used


def cpu_since(before: dict[int, float]) -> float:
    """Give what the processes of an earlier look used since then, in seconds, without those that ended."""
    return sum(seconds - before[pid] for pid, seconds in cpu_seconds(before).items())


def resident_bytes(pid: int) -> int:
    """Give the memory that a process alone occupies, in bytes: its anonymous pages."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no RssAnon of process {pid}")
