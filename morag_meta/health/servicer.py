"""grpc.health.v1 for this service: Check, and a Watch that ends when the process drains.

Names: ``""`` and ``readiness`` tell whether calls can be served now, ``liveness`` whether the process
is worth keeping, and each API service by its full name follows readiness. No key is needed. The
library's own servicer is not used because its open watches hold up a shutdown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb

from morag_meta.errors import Invalid, NotFound, Reason, Unavailable
from morag_meta.health.probe import Probe
from morag_meta.rpc.decoding import decode
from morag_meta.rpc.status import abort

SERVICE = "grpc.health.v1.Health"
LIVENESS = "liveness"
READINESS = "readiness"

_WRITE_SECONDS = 2.0

_serialize: Any = pb.HealthCheckResponse.SerializeToString
Context = grpc.aio.ServicerContext[Any, Any]


class Health:
    """The health of this process as gRPC tells it; lives on one event loop."""

    def __init__(self, probe: Probe, services: Iterable[str]) -> None:
        """Follow the probe for readiness and for each of the named services."""
        self._probe = probe
        self._following = frozenset({"", READINESS, *services})
        self._draining = False
        self._change = asyncio.Event()
        probe.subscribe(self._wake)

    def register(self, server: grpc.aio.Server) -> None:
        """Serve both methods on a server that has not started."""
        handlers: dict[str, Any] = {
            "Check": grpc.unary_unary_rpc_method_handler(self._decoding(self.Check), None, _serialize),
            "Watch": grpc.unary_stream_rpc_method_handler(self._decoding(self.Watch), None, _serialize),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def drain(self) -> None:
        """Tell every watcher NOT_SERVING and end its stream; from now on only liveness serves."""
        self._draining = True
        self._wake()

    async def Check(self, name: str, context: Context) -> Any:
        status = self._status(name)
        if status == pb.HealthCheckResponse.SERVICE_UNKNOWN:
            metadata = {"resource_type": "service", "resource_id": name}
            unknown = NotFound("unknown service", reason=Reason.RESOURCE_NOT_FOUND, metadata=metadata)
            await abort(context, unknown)
        return pb.HealthCheckResponse(status=status)

    async def Watch(self, name: str, context: Context) -> None:
        told: int | None = None
        while True:
            change = self._change
            if (status := self._status(name)) != told:
                await _write(context, pb.HealthCheckResponse(status=status))
                told = status
            if self._draining:
                return
            await change.wait()

    def _status(self, name: str) -> int:
        if name != LIVENESS and name not in self._following:
            return int(pb.HealthCheckResponse.SERVICE_UNKNOWN)
        serving = name == LIVENESS or (self._probe.ready and not self._draining)
        return int(pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING)

    def _wake(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    @staticmethod
    def _decoding(method: Callable[[str, Context], Awaitable[Any]]) -> Callable[[bytes, Context], Any]:
        """Read the request, or end the call that brings none."""

        async def handle(data: bytes, context: Context) -> Any:
            try:
                request = decode(pb.HealthCheckRequest, data)
            except Invalid as error:
                await abort(context, error)
            return await method(request.service, context)

        return handle


async def _write(context: Context, message: Any) -> None:
    """Send one status; who does not read is cut off, so as not to hold up the drain."""
    try:
        await asyncio.wait_for(context.write(message), _WRITE_SECONDS)
    except TimeoutError:
        await abort(context, Unavailable("the reader took nothing", reason=Reason.READER_TOO_SLOW))
