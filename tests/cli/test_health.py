"""``morag-meta health``: what it prints and the exit codes that scripts rely on."""

from __future__ import annotations

import socket

import pytest

from morag_meta.exits import ExitCode
from tests.cli.command import Command
from tests.service import Service


@pytest.mark.parametrize("service_name", ["", "readiness", "liveness", "moragmeta.v1.DocumentService"])
def test_serving_server_is_zero(cli: Command, service: Service, service_name: str) -> None:
    """Every documented name of a serving server is SERVING and exits with 0."""
    result = cli("health", "--target", service.target, "--service", service_name)
    assert (result.code, result.out) == (ExitCode.OK, "SERVING\n")


def test_answer_is_json_when_asked(cli: Command, service: Service) -> None:
    """JSON names the service and its status."""
    result = cli("health", "-t", service.target, "-s", "liveness", "-o", "json")
    assert result.json == {"service": "liveness", "status": "SERVING"}


def test_target_comes_from_the_environment(
    cli: Command, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MORAG_TARGET names the server, else the address this machine's server would listen on."""
    monkeypatch.setenv("MORAG_TARGET", service.target)
    assert cli("health").code is ExitCode.OK
    monkeypatch.delenv("MORAG_TARGET")
    monkeypatch.setenv("MORAG_GRPC_ADDRESS", f"0.0.0.0:{service.port}")
    assert cli("health").code is ExitCode.OK


def test_unknown_service_is_three(cli: Command, service: Service) -> None:
    """A name that the server does not know exits with 3 and one line."""
    result = cli("health", "-t", service.target, "-s", "nobody.Knows")
    assert (result.code, result.code.value) == (ExitCode.NOT_FOUND, 3)
    assert result.err == "error: the server knows no service 'nobody.Knows'\n"


def test_refusing_target_is_two(cli: Command) -> None:
    """A port on which nobody listens exits with 2 and one line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # so that nobody else can listen there meanwhile
        result = cli("health", "-t", f"127.0.0.1:{probe.getsockname()[1]}")
    assert (result.code, result.code.value) == (ExitCode.UNREACHABLE, 2)
    assert result.err.count("\n") == 1


def test_silent_target_is_two_within_the_timeout(cli: Command) -> None:
    """A target that takes the connection and says nothing exits with 2 when the time is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = cli("health", "-t", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.5")
    assert result.code is ExitCode.UNREACHABLE
    assert result.err.count("\n") == 1
