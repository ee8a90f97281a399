"""One throwaway server process: started, frozen, killed and ended with the tests.

What is particular to PostgreSQL or MariaDB lives in the files beside this one.
"""

from __future__ import annotations

import itertools
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

# Below the range from which the system gives outgoing connections their ports, so that a server that
# is stopped finds its port free when it starts again.
_PORTS = range(20_000, 32_000)
_NOBODY = 65534


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on now."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 - no secret, only unlikely to meet another run's choice
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def dies_with_us(number: signal.Signals) -> list[str]:
    """Return the words before a command that send it a signal when the thread that started it ends.

    They come last before the command, because a change of user takes the effect away.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", number.name.removeprefix("SIG"), "--"] if setpriv else []


def as_nobody(owned: Path) -> list[str]:
    """Return the words before a command that make it run without being root; none when we are not root.

    A user namespace needs no change of ownership and reaches folders closed to others. Where the system
    forbids it, the command runs as `nobody`, who is given ``owned``.
    """
    if os.geteuid() != 0:
        return []
    namespace = ["unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", "--"]
    if shutil.which("unshare") and subprocess.run([*namespace, "true"], check=False).returncode == 0:
        return namespace
    shutil.chown(owned, _NOBODY, _NOBODY)
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--"]


def run(command: Sequence[str]) -> None:
    """Run a command to its end.

    Raises:
        RuntimeError: it failed; the text holds what it printed.

    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


class Daemon(ABC):
    """A server process and its children, whose folder goes when it is closed.

    Start it from a thread that lives as long as the server is needed, best the main one.
    """

    dialect: str
    _ending: signal.Signals
    """Asks the server to end in order without waiting for its clients."""

    def __init__(self, *options: str) -> None:
        """Prepare the data; ``options`` are settings such as ``max_connections=20``."""
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix=f"morag-{self.dialect}-"))
        self._log = self._folder / "log"
        self._password = secrets.token_hex(16)
        self._databases = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._command = self._prepare(options)
        except BaseException:
            self._remove()
            raise

    @abstractmethod
    def _prepare(self, options: Sequence[str]) -> list[str]:
        """Make the data folder and return the command that serves it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the server can be used."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The administrator's URL of a database of their own, as a user would write it."""

    @abstractmethod
    def create_database(self) -> str:
        """Create a database and return its URL."""

    @abstractmethod
    def drop_database(self, url: str) -> None:
        """Remove a database that :meth:`create_database` made, whoever is connected."""

    @property
    def running(self) -> bool:
        """Whether the process lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the server's first process.

        Raises:
            RuntimeError: it was never started.

        """
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Where the data, the log and the socket are."""
        return self._folder

    def start(self, seconds: float = 60) -> None:
        """Start the server, on the same port and data as before, and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the text holds the end of its log.

        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        limit = time.monotonic() + seconds
        while not self._answers():
            if not self.running or time.monotonic() > limit:
                self.kill()
                raise RuntimeError(f"{self._command[0]} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, seconds: float = 30) -> None:
        """End the server in order, its connections cut; kill it when that takes too long."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self._ending)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server and its children with SIGKILL, as a power cut would."""
        if self._process is None:
            return
        children = _children(self._process.pid)
        self._signal_all(signal.SIGKILL)
        self._process.wait()
        limit = time.monotonic() + 10
        while any(map(_is_alive, children)) and time.monotonic() < limit:
            time.sleep(0.005)  # the next PostgreSQL starts once nobody has the memory of this one

    def pause(self) -> None:
        """Freeze the server: its connections stay open and nothing answers any more."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        if not self.running or self._process is None:
            return
        parent = self._process.pid
        if number != signal.SIGCONT:
            # Frozen first, the parent makes no child that would be missed.
            os.kill(parent, signal.SIGSTOP)
        for process in [*_children(parent), parent]:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start the server."""
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and remove its data."""
        self.stop()
        self._remove()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _children(parent: int) -> list[int]:
    """Return the processes that ``parent`` made, and theirs: PostgreSQL's have sessions of their own."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything, so the fields are counted from its end.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [parent]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found
