"""Faults of processes: servers and workers that are killed, frozen, restarted, or have the wrong time."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

from tests.robustness.scene import Scene

_CLOCKS = Path(__file__).parent / "clocks"
"""Holds what shifts the clock of a process that finds it in its path."""
_NUMBERING = b"UPDATE job_log"
_REAPING = b"the lease of attempt "
"""What only the sequencer's, and only the reaper's, statements hold."""


def kill_server(scene: Scene) -> None:
    """Kill a server at any moment, and start it again; it may be the one that numbers events, or reaps."""
    server = scene.server
    server.kill()
    scene.rest(0, 0.5)
    server.start()


def kill_every_server(scene: Scene) -> None:
    """Kill all servers at once: whichever of them numbered events and reaped is gone."""
    for server in scene.cluster.servers:
        server.kill()
    for server in scene.cluster.servers:
        server.start()


def kill_before_commit(scene: Scene) -> None:
    """Kill a server while a COMMIT of its is under way that never arrives."""
    scene.back.stall_at(scene.commit)
    _kill_caught(scene)


def kill_after_commit(scene: Scene) -> None:
    """Kill a server just after a commit whose answer it never got."""
    scene.back.stall_at(scene.commit, arrives=True)
    _kill_caught(scene)


def kill_sequencer(scene: Scene) -> None:
    """Kill the server that numbers events while it holds the log's row, with a batch not yet committed."""
    scene.back.stall_at(_NUMBERING)
    _kill_caught(scene)


def kill_reaper(scene: Scene) -> None:
    """Kill the server that ends a lease that expired, in the midst of it."""
    scene.back.stall_at(_REAPING)
    _kill_caught(scene)


def _kill_caught(scene: Scene) -> None:
    """Kill the server that a relay has stopped, cut it off, and start it again."""
    back = scene.back
    limit = time.monotonic() + 3
    while not (port := back.caught) and time.monotonic() < limit:
        time.sleep(0.005)
    servers = scene.cluster.servers
    server = next((s for s in servers if port in _ports(s.process.pid)), scene.server)
    server.kill()
    back.flow()
    server.start()


def _ports(process: int) -> set[int]:
    """Give the local ports of a process's connections."""
    links = set()
    for file in Path("/proc", str(process), "fd").iterdir():
        with contextlib.suppress(OSError):
            links.add(str(file.readlink()))
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    found = [(line.split()[1], line.split()[9]) for line in lines]
    return {int(local.rpartition(":")[2], 16) for local, node in found if f"socket:[{node}]" in links}


def kill_after_send(scene: Scene) -> None:
    """Kill a server whose answers have just begun to reach the clients."""
    place = scene.chance.randrange(len(scene.cluster.fronts))
    server, front = scene.cluster.servers[place], scene.cluster.fronts[place]
    seen = front.answers
    limit = time.monotonic() + 2
    while front.answers < seen + 2 and time.monotonic() < limit:
        time.sleep(0.001)
    server.kill()
    server.start()


def pause_server(scene: Scene) -> None:
    """Freeze a server for a while: it may hold locks, or be the one that numbers events."""
    process = scene.server.process
    process.send_signal(signal.SIGSTOP)
    scene.rest(1, 3)
    process.send_signal(signal.SIGCONT)


def rolling_restart(scene: Scene) -> None:
    """Ask one server after the other to end, and start it again."""
    for server in scene.cluster.servers:
        begun = time.monotonic()
        code = server.terminate()
        scene.drains.append(time.monotonic() - begun)
        server.start()
        if code != 0:
            raise RuntimeError(f"a server that was asked to end ended with {code}")


def step_clock(scene: Scene) -> None:
    """Start a server whose clock is an hour off, to either side, and after a while one that is right."""
    server = scene.server
    right = dict(server.environment)
    server.environment |= {"PYTHONPATH": str(_CLOCKS), "CLOCK_OFFSET": scene.chance.choice(("-3600", "3600"))}
    server.kill()
    server.start()
    scene.rest(1, 3)
    server.environment = right
    server.kill()
    server.start()


def kill_workers(scene: Scene) -> None:
    """Kill a process of workers, and start another."""
    crew = scene.chance.choice(scene.crews)
    crew.signal(signal.SIGKILL)
    crew.restart()


def pause_workers(scene: Scene) -> None:
    """Freeze a process of workers for longer than their leases live."""
    crew = scene.chance.choice(scene.crews)
    crew.signal(signal.SIGSTOP)
    scene.rest(1.2, 2.5)
    crew.signal(signal.SIGCONT)
