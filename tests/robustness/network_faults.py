"""Faults of the network: connections that are cut, delayed, swallowed and not read, also at a COMMIT."""

from __future__ import annotations

import time

from tests.robustness.relay import Relay
from tests.robustness.scene import Scene


def cut_before_commit(scene: Scene) -> None:
    """Cut the connection that sends the next COMMIT, before it arrives."""
    scene.back.cut_at(scene.commit, arrives=False)
    scene.rest(0.2, 0.4)


def cut_after_commit(scene: Scene) -> None:
    """Cut the connection that sends the next COMMIT, once it is done and not yet answered."""
    scene.back.cut_at(scene.commit, arrives=True)
    scene.rest(0.2, 0.4)


def cut_clients(scene: Scene) -> None:
    """Cut all connections of clients to a server."""
    scene.front.cut()


def delay_clients(scene: Scene) -> None:
    """Pass nothing on between clients and a server for a moment, several times."""
    _delay(scene, scene.front)


def delay_database(scene: Scene) -> None:
    """Pass nothing on between the servers and their database for a moment, several times."""
    _delay(scene, scene.back)


def _delay(scene: Scene, relay: Relay) -> None:
    for _ in range(5):
        relay.stall()
        scene.rest(0.05, 0.3)
        relay.flow()
        scene.rest(0.05, 0.1)


def stop_reading(scene: Scene) -> None:
    """Let some of those who watch read nothing: where there is time, for longer than a server waits."""
    scene.reading.clear()
    time.sleep(8 if scene.long else 2)
    scene.reading.set()


def blackhole_clients(scene: Scene) -> None:
    """Swallow all that goes between clients and a server for a while, then cut it."""
    front = scene.front
    front.stall()
    scene.rest(1, 4)
    front.cut()
    front.flow()


def blackhole_database(scene: Scene) -> None:
    """Swallow all that goes between the servers and their database for a while."""
    back = scene.back
    back.stall()
    scene.rest(1, 4)
    back.cut()
    back.flow()
