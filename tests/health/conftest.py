"""A server that offers health alone, over a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2_grpc

from morag_meta.db.engine import DatabaseOptions
from morag_meta.health.probe import Probe
from morag_meta.health.servicer import Health

SERVICE = "moragmeta.v1.DocumentService"


@dataclass
class Serving:
    """A running health server and a client of it."""

    health: Health
    server: grpc.aio.Server
    channel: grpc.aio.Channel
    stub: Any


@pytest.fixture
def existing_url(database_url: str) -> str:
    """Give a database that exists; for SQLite that is an empty file."""
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    return database_url


@pytest.fixture
async def serving(existing_url: str) -> AsyncIterator[Serving]:
    """Serve health over the test's database."""
    probe = Probe(DatabaseOptions(url=existing_url))
    health = Health(probe, [SERVICE])
    server = grpc.aio.server()
    health.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await probe.start()
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Serving(health, server, channel, health_pb2_grpc.HealthStub(channel))
    await server.stop(0)
    await probe.stop()
