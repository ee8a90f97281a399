"""``morag-meta health``: asks a server how it is, for people, containers and scripts."""

from __future__ import annotations

from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from morag_meta.cli.failures import CommandError, status_name
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, say
from morag_meta.cli.target import Target, open_channel
from morag_meta.exits import ExitCode


def health(
    target: Target = None,
    service: Annotated[
        str,
        typer.Option(
            "--service", "-s", help="readiness, liveness, or a service's full name; readiness if empty."
        ),
    ] = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait.")] = 5.0,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> ExitCode:
    """Ask a server for its health: 0 serving, 2 unreachable, 3 unknown service, 4 not serving.

    This machine's own is asked at MORAG_HEALTH_ADDRESS, where that is set.
    """
    settings = read_settings(database_url)
    own = settings.health_address if target is None else None
    stub: Any
    with open_channel(own or target or settings.grpc_address, plaintext=own is not None) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        status = _ask(stub, service, timeout)
    if output is Format.JSON:
        print_json({"service": service, "status": status})
    else:
        say(status)
    return ExitCode.OK if status == "SERVING" else ExitCode.NOT_SERVING


def _ask(stub: Any, service: str, timeout: float) -> str:
    try:
        response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
    except grpc.RpcError as error:
        if status_name(error) == "NOT_FOUND":
            raise CommandError(f"the server knows no service {service!r}", ExitCode.NOT_FOUND) from None
        raise
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
