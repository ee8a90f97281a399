"""A channel to the service: credentials, keepalive, and a deadline and retries for every RPC.

What does not live here: the rules themselves, which are in service_config.json for every language, and
calls that go on for longer than their deadline (:mod:`morag_client.repeating`).
"""

from __future__ import annotations

import json
import uuid
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

SERVICE_CONFIG: Final = resources.files(__package__).joinpath("service_config.json").read_text()
"""The deadline of every RPC and the retries of those that may be repeated, as gRPC reads them."""

_OPTIONS: Final = (
    # A server that went away without a word is noticed within half a minute; the service permits a ping
    # every 10 s. One that is back is found soon.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


def tls_credentials(
    ca_file: str | Path | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
) -> grpc.ChannelCredentials:
    """Return credentials for a service that speaks TLS, from PEM files.

    ``ca_file`` holds the authorities that may vouch for the service; without it those that gRPC brings.
    ``cert_file`` and ``key_file`` are the caller's own, for a service that asks for a certificate.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is a certificate without its key, or a key without its certificate.
    """
    if (cert_file is None) != (key_file is None):
        raise ValueError("a certificate and its key belong together")
    ca, key, certificate = (
        None if file is None else Path(file).read_bytes() for file in (ca_file, key_file, cert_file)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def connect(
    target: str,
    key: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    service_config: str = SERVICE_CONFIG,
) -> grpc.Channel:
    """Return a channel for the stubs of ``moragmeta.v1``; it connects when it is first used.

    ``target`` is HOST:PORT, ``key`` an API key, which goes with every call. With ``credentials`` (of
    :func:`tls_credentials`) the connection is TLS, without it is not encrypted. Every call has the deadline
    that the service config names for its RPC, unless it brings a ``timeout``. A write without a
    ``request_id`` gets one, for gRPC may send it twice.
    """
    deadlines, config = _split(service_config)
    options = (*_OPTIONS, ("grpc.service_config", config))
    bare = (
        grpc.insecure_channel(target, options)
        if credentials is None
        else grpc.secure_channel(target, credentials, options)
    )
    return grpc.intercept_channel(bare, _Caller(key, deadlines))


def _split(service_config: str) -> tuple[dict[str, float], str]:
    """Return the deadlines of a service config in seconds by path, and the rest of it, for gRPC.

    gRPC's C core lets deadlines from its service config pass up to two seconds early (grpc/grpc#40633).
    """
    config = json.loads(service_config)
    deadlines = dict[str, float]()
    for entry in config["methodConfig"]:
        if timeout := entry.pop("timeout", ""):
            paths = (f"/{name['service']}/{name['method']}" for name in entry["name"])
            deadlines |= dict.fromkeys(paths, float(timeout.removesuffix("s")))
    return deadlines, json.dumps(config)


class _Call(NamedTuple):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Details(_Call, grpc.ClientCallDetails):
    """A call as gRPC wants to have it described."""


class _Caller(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds to each call what the service wants of every caller."""

    def __init__(self, key: str, deadlines: dict[str, float]) -> None:
        self._metadata = (("x-api-key", key),)
        self._deadlines = deadlines

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._known(details), _with_request_id(request))

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._known(details), request)

    def _known(self, details: Any) -> _Details:
        return _Details(
            details.method,
            self._deadlines.get(details.method) if details.timeout is None else details.timeout,
            (*(details.metadata or ()), *self._metadata),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def _with_request_id(request: Any) -> Any:
    """Return the request, or a copy with an id: the caller may well use the message for another call."""
    if "request_id" not in request.DESCRIPTOR.fields_by_name or request.request_id:
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    copy.request_id = str(uuid.uuid4())
    return copy
