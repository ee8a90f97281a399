"""What faults happen to, and by which chances."""

from __future__ import annotations

import random
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from tests.processes import ServerProcess
from tests.robustness.cluster import Cluster
from tests.robustness.relay import Relay


class Crew(Protocol):
    """A process with workers in it."""

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""

    def restart(self) -> None:
        """Start another process with as many workers."""


@dataclass(slots=True)
class Scene:
    """A running cluster, and the workers of it."""

    cluster: Cluster
    crews: list[Crew]
    chance: random.Random
    reading: threading.Event
    """While it is not set, some of those who watch read nothing."""
    long: bool = False
    """Whether there is time to wait for long."""
    drains: list[float] = field(default_factory=list)
    """Seconds from SIGTERM to the end of each server that was asked to end."""

    @property
    def server(self) -> ServerProcess:
        """Any server."""
        return self.chance.choice(self.cluster.servers)

    @property
    def front(self) -> Relay:
        """Any relay between clients and a server."""
        return self.chance.choice(self.cluster.fronts)

    @property
    def back(self) -> Relay:
        """The relay before the database.

        Raises:
            RuntimeError: the cluster has none.
        """
        if self.cluster.back is None:
            raise RuntimeError("this fault needs a relay before the database")
        return self.cluster.back

    @property
    def commit(self) -> bytes:
        """COMMIT as the database's protocol frames it."""
        return b"\x03COMMIT" if self.cluster.kind == "mariadb" else b"COMMIT\x00"

    def rest(self, least: float, most: float) -> None:
        """Wait between two times, in seconds."""
        time.sleep(self.chance.uniform(least, most))
