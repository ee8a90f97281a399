"""grpc.health.v1 on the wire: Check, List and Watch."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from tests.health.conftest import SERVICE, Serving

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


def _request(name: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


@pytest.mark.parametrize("name", ["", "readiness", "liveness", SERVICE])
async def test_check_knows_every_name(serving: Serving, name: str) -> None:
    """With the database there, each documented name is SERVING and needs no key."""
    assert (await serving.stub.Check(_request(name))).status == SERVING


async def test_check_of_an_unknown_service_is_not_found(serving: Serving) -> None:
    """An unknown name is NOT_FOUND with the machine-readable reason."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await serving.stub.Check(_request("nobody.v1.Knows"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(bytes(details)).details[0].Unpack(info)
    assert info.reason == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_bytes_that_are_no_request_are_invalid(serving: Serving, method: str) -> None:
    """Garbage is INVALID_ARGUMENT, not an internal error."""
    call: Any = serving.channel.unary_stream(f"/grpc.health.v1.Health/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call(b"\xff\xff\xff"):
            pass
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_watch_of_an_unknown_service_says_so_and_stays_open(serving: Serving) -> None:
    """Watch tells SERVICE_UNKNOWN and does not end."""
    stream = serving.stub.Watch(_request("nobody.v1.Knows"))
    assert (await stream.read()).status == UNKNOWN
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(stream.read())), 0.3)
    stream.cancel()


async def test_drain_tells_watchers_and_ends_their_streams(serving: Serving) -> None:
    """At drain a watcher is told NOT_SERVING, its stream ends with OK, and stop does not wait for it."""
    stream = serving.stub.Watch(_request(SERVICE))
    lively = serving.stub.Watch(_request("liveness"))
    assert (await stream.read()).status == SERVING
    assert (await lively.read()).status == SERVING
    serving.health.drain()
    assert (await stream.read()).status == NOT_SERVING
    assert await stream.read() == grpc.aio.EOF
    assert await lively.read() == grpc.aio.EOF
    assert await stream.code() == grpc.StatusCode.OK
    began = time.monotonic()
    await serving.server.stop(5)
    assert time.monotonic() - began < 4


async def test_only_liveness_serves_while_draining(serving: Serving) -> None:
    """After drain a check of readiness is NOT_SERVING and of liveness still SERVING."""
    serving.health.drain()
    assert (await serving.stub.Check(_request("readiness"))).status == NOT_SERVING
    assert (await serving.stub.Check(_request(SERVICE))).status == NOT_SERVING
    assert (await serving.stub.Check(_request("liveness"))).status == SERVING


async def test_a_watch_opened_while_draining_ends_at_once(serving: Serving) -> None:
    """A late watcher is told NOT_SERVING and not kept."""
    serving.health.drain()
    stream = serving.stub.Watch(_request(""))
    assert [each.status async for each in stream] == [NOT_SERVING]
