"""Faults of processes: servers and workers that are killed, frozen, restarted, or have the wrong time."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.robustness.scene import Scene

_CLOCKS = Path(__file__).parent / "clocks"
"""Holds what shifts the clock of a process that finds it in its path."""


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
    """Kill every server while a COMMIT is under way that never arrives."""
    back = scene.back
    back.stall_at(scene.commit)
    scene.rest(0.3, 0.6)
    for server in scene.cluster.servers:
        server.kill()
    back.cut()
    back.flow()
    for server in scene.cluster.servers:
        server.start()


def kill_after_commit(scene: Scene) -> None:
    """Kill a server just after a commit whose answer it never got."""
    back = scene.back
    back.cut_at(scene.commit, arrives=True, then_refuse=True)
    scene.rest(0.1, 0.3)
    server = scene.server
    server.kill()
    back.refuse(refusing=False)
    server.start()


def kill_after_send(scene: Scene) -> None:
    """Kill a server whose answers have just begun to reach the clients."""
    place = scene.chance.randrange(len(scene.cluster.fronts))
    server, front = scene.cluster.servers[place], scene.cluster.fronts[place]
    seen = len(front.sent)
    limit = time.monotonic() + 2
    while len(front.sent) < seen + 5 and time.monotonic() < limit:
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
        code = server.terminate()
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
