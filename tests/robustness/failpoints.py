"""Every fault by its name, where it can happen, and what it needs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.robustness import database_faults, network_faults, process_faults
from tests.robustness.scene import Scene

_SERVERS = ("postgresql", "mariadb")
_EVERY = ("sqlite", *_SERVERS)


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One kind of fault: it is over when ``run`` returns."""

    run: Callable[[Scene], None]
    kinds: tuple[str, ...] = _EVERY
    front: bool = False
    """Whether it needs relays between clients and servers."""
    back: bool = False
    """Whether it needs a relay between servers and database."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.run.__name__.replace("_", "-")


_ALL = (
    Failpoint(process_faults.kill_server),
    Failpoint(process_faults.kill_every_server),
    Failpoint(process_faults.kill_before_commit, _SERVERS, back=True),
    Failpoint(process_faults.kill_after_commit, _SERVERS, back=True),
    Failpoint(process_faults.kill_after_send, front=True),
    Failpoint(process_faults.kill_sequencer, _SERVERS, back=True),
    Failpoint(process_faults.kill_reaper, _SERVERS, back=True),
    Failpoint(process_faults.pause_server),
    Failpoint(process_faults.rolling_restart),
    Failpoint(process_faults.step_clock),
    Failpoint(process_faults.kill_workers),
    Failpoint(process_faults.pause_workers),
    Failpoint(network_faults.cut_before_commit, _SERVERS, back=True),
    Failpoint(network_faults.cut_after_commit, _SERVERS, back=True),
    Failpoint(network_faults.cut_clients, front=True),
    Failpoint(network_faults.delay_clients, front=True),
    Failpoint(network_faults.blackhole_clients, front=True),
    Failpoint(network_faults.stop_reading),
    Failpoint(network_faults.delay_database, _SERVERS, back=True),
    Failpoint(network_faults.blackhole_database, _SERVERS, back=True),
    Failpoint(database_faults.terminate_connections, _SERVERS),
    Failpoint(database_faults.cut_listener, ("postgresql",)),
    Failpoint(database_faults.stop_database, _SERVERS),
    Failpoint(database_faults.kill_database, _SERVERS),
    Failpoint(database_faults.pause_database, _SERVERS),
    Failpoint(database_faults.use_up_connections, _SERVERS),
    Failpoint(database_faults.hold_write_lock, ("sqlite",)),
    Failpoint(database_faults.trim_events),
)
FAILPOINTS = {failpoint.name: failpoint for failpoint in _ALL}


def possible(kind: str) -> list[Failpoint]:
    """Give the faults that can happen on a kind of database."""
    return [failpoint for failpoint in _ALL if kind in failpoint.kinds]
