"""grpc.health.v1, and server reflection: what containers and tools ask for, without a credential."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.caller import PACKAGE
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import Unmet, holds, read, same
from moragmeta.v1 import jobs_pb2

AREA = Area("health and reflection")
_NAMES = ("User", "ApiKey", "Server", "Database", "Document", "Job", "Worker")
_SERVICES = {f"{PACKAGE}.{name}Service" for name in _NAMES}


def _status(bench: Bench, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(bench.nobody.channel)
    answer: int = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
    return answer


def _reflect(bench: Bench, **question: Any) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(bench.nobody.channel)
    asked = reflection_pb2.ServerReflectionRequest(**question)
    return next(iter(stub.ServerReflectionInfo(iter([asked]), timeout=20.0)))


@AREA.case
def the_server_is_ready(bench: Bench) -> None:
    """The empty name, `readiness` and `liveness` are SERVING."""
    for service in ("", "readiness", "liveness"):
        same(f"the status of {service!r}", _status(bench, service), health_pb2.HealthCheckResponse.SERVING)


@AREA.case
def every_service_is_ready(bench: Bench) -> None:
    """Each service of the package is SERVING."""
    for service in sorted(_SERVICES):
        same(f"the status of {service}", _status(bench, service), health_pb2.HealthCheckResponse.SERVING)


@AREA.case
def an_unknown_service_is_not_found(bench: Bench) -> None:
    """A service that is not there is NOT_FOUND."""
    try:
        _status(bench, "paint.v1.PaintService")
    except grpc.RpcError as error:
        same("the code", read(error).code, "NOT_FOUND")
    else:
        raise Unmet("NOT_FOUND", "OK")


@AREA.case
def health_can_be_watched(bench: Bench) -> None:
    """A watch of the health says at once how it is."""
    stub: Any = health_pb2_grpc.HealthStub(bench.nobody.channel)
    call = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"))
    try:
        same("the status", next(iter(call)).status, health_pb2.HealthCheckResponse.SERVING)
    finally:
        call.cancel()


@AREA.case
def reflection_names_every_service(bench: Bench) -> None:
    """Reflection lists every service of the package."""
    answer = _reflect(bench, list_services="")
    listed = {service.name for service in answer.list_services_response.service}
    same("services that are missing", _SERVICES - listed, set())


@AREA.case
def reflection_shows_the_contract(bench: Bench) -> None:
    """Reflection gives the file that declares a service, with its messages."""
    answer = _reflect(bench, file_containing_symbol=f"{PACKAGE}.JobService")
    files = answer.file_descriptor_response.file_descriptor_proto
    wanted = jobs_pb2.DESCRIPTOR.serialized_pb
    holds("the file that the stubs were made from", fact=wanted in files, seen=f"{len(files)} other files")
