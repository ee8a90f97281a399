"""The service as a process of its own: started, signaled, and read from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.backends.daemon import free_port
from tests.backends.walled import settings_of
from tests.leaks.watching import note_text
from tests.service import CREDENTIAL_KEYS, SECRET_KEY

SERVING, NOT_SERVING = 1, 2


def environment(**variables: str) -> dict[str, str]:
    """Give an environment with these ``MORAG_`` variables and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MORAG_")}
    given = {"LOG_FORMAT": "json", "BCRYPT_COST": "10"} | variables
    return inherited | {f"MORAG_{name}": value for name, value in given.items()}


class Served:
    """One ``morag-meta serve``, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *words: str,
        port: int | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        **variables: str,
    ) -> None:
        """Prepare; ``words`` go on the command line, ``variables`` into the environment without prefix.

        ``credentials`` are those of whoever waits for it, where it speaks TLS.
        """
        self._credentials = credentials
        self.port = free_port() if port is None else port
        self.target = f"127.0.0.1:{self.port}"
        self._folder = folder
        self._words = ["serve", "--address", self.target, "--database-url", url, *words]
        secrets = (
            {} if url.startswith("sqlite") else {"SECRET_KEY": SECRET_KEY, "CREDENTIAL_KEYS": CREDENTIAL_KEYS}
        )
        self._environment = environment(**(secrets | settings_of(url) | variables))
        self._log = folder / f"log-{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process, and do not wait for it."""
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "morag_meta", *self._words],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def running(self) -> subprocess.Popen[str]:
        """The process, which was started."""
        assert self.process is not None
        return self.process

    def ready(self, seconds: float = 30) -> None:
        """Wait until the service says that it serves."""
        self.until("", SERVING, seconds)

    def until(self, service: str, status: int, seconds: float) -> float:
        """Wait for a status and return how long it took."""
        began = time.monotonic()
        while self.status(service) != status:
            assert time.monotonic() - began < seconds, f"not {status} within {seconds} s:\n{self.log}"
            assert self.running.poll() is None, f"ended:\n{self.log}"
            time.sleep(0.05)
        return time.monotonic() - began

    def status(self, service: str = "") -> int | None:
        """Ask for the health; None when nobody answers."""
        with self.channel(self._credentials) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2).status)
            except grpc.RpcError:
                return None

    def channel(self, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
        """Connect with these credentials, or without TLS."""
        if credentials is None:
            return grpc.insecure_channel(self.target)
        return grpc.secure_channel(self.target, credentials)

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int:
        """Send a signal, wait for the end, and give the exit code."""
        self.running.send_signal(number)
        return self.running.wait(seconds)

    @property
    def out(self) -> str:
        """What an ended process printed."""
        stdout = self.running.stdout
        assert stdout is not None
        with stdout:
            return stdout.read()

    @property
    def log(self) -> str:
        """What was written to stderr so far."""
        return self._log.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log's lines, without one that is being written."""
        return [json.loads(line) for line in self.log.split("\n")[:-1] if line.startswith("{")]

    def tells(self, event: str, seconds: float = 30) -> None:
        """Wait until the log tells of an event."""
        end = time.monotonic() + seconds
        while not any(line["event"] == event for line in self.events):
            assert time.monotonic() < end, f"no {event!r} within {seconds} s:\n{self.log}"
            time.sleep(0.001)

    def computes(self, seconds: float = 30) -> None:
        """Wait until it has computed for a while, as over a password that is checked."""
        before, end = computed(self.running.pid), time.monotonic() + seconds
        while computed(self.running.pid) < before + 0.2:
            assert time.monotonic() < end, f"idle for {seconds} s:\n{self.log}"
            time.sleep(0.01)

    def workers(self) -> list[int]:
        """The ids of the worker processes that live, in the order of their start."""
        started = [event["worker"] for event in self.events if event["event"] == "worker started"]
        return [pid for pid in started if lives(pid)]


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def computed(pid: int) -> float:
    """Give how many seconds a process has computed so far."""
    used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(folder: Path, url: str, *words: str, **variables: Any) -> Iterator[Served]:
    """Serve for the length of a block; what is left of it is killed."""
    service = Served(folder, url, *words, **variables)
    service.start()
    try:
        service.ready()
        yield service
    finally:
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        service.running.kill()
        service.running.wait()
        stdout = service.running.stdout
        assert stdout is not None
        stdout.close()
        note_text("the log of a process", service.log)


def run(*words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "morag_meta", *words],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
