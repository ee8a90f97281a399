"""The deadlines and retries that every client may use: none forgotten, none that could do harm."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

import morag_client

_PROTOS = Path(__file__).parents[2] / "protos/moragmeta/v1"
# A repeat of these is harmless by their own comments, though they have no `request_id`.
_REPORTS = {"JobService/UpdateJobProgress", "WorkerService/HeartbeatJob"}


def _methods() -> Iterator[tuple[str, MethodDescriptor]]:
    for path in sorted(_PROTOS.glob("*.proto")):
        descriptor = importlib.import_module(f"moragmeta.v1.{path.stem}_pb2").DESCRIPTOR
        for service in descriptor.services_by_name.values():
            for method in service.methods:
                yield f"{service.name}/{method.name}", method


def _configured() -> Iterator[tuple[str, dict[str, Any]]]:
    for config in json.loads(morag_client.SERVICE_CONFIG)["methodConfig"]:
        for name in config["name"]:
            yield f"{name['service'].removeprefix('moragmeta.v1.')}/{name['method']}", config


def _seconds(config: dict[str, Any]) -> float:
    timeout: str = config["timeout"]
    assert timeout.endswith("s")
    return float(timeout[:-1])


def test_every_rpc_is_named_once() -> None:
    """The file names each RPC of the package exactly once, and nothing else."""
    assert sorted(name for name, _ in _configured()) == sorted(name for name, _ in _methods())


def test_every_rpc_has_a_deadline_that_fits() -> None:
    """Plain calls get a minute at most, LeaseJobs more than its longest wait, streams more than an hour."""
    config = dict(_configured())
    for name, method in _methods():
        least, most = (
            (3600, 7200) if method.server_streaming else (60, 90) if "LeaseJobs" in name else (5, 60)
        )
        assert least < _seconds(config[name]) + 1e-9 <= most + 1e-9, name


def test_only_what_is_harmless_to_repeat_is_retried() -> None:
    """Reads, writes with a request id and reports are retried; Login, other writes and streams never."""
    safe = set(_REPORTS)
    for name, method in _methods():
        read = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        if not method.server_streaming and (read or "request_id" in method.input_type.fields_by_name):
            safe.add(name)
    retried = {name for name, config in _configured() if "retryPolicy" in config}
    assert retried == safe
    assert not any("Login" in name or "Watch" in name for name in retried)


def test_retries_are_few_and_only_of_what_was_not_done() -> None:
    """At most five tries (gRPC's own limit) with growing pauses, after what the end of a process brings."""
    for name, config in _configured():
        if policy := config.get("retryPolicy"):
            assert policy["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"], name
            assert 2 <= policy["maxAttempts"] <= 5, name
            assert policy["backoffMultiplier"] > 1, name
