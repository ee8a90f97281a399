"""How the examples reach the service: its address, the key, and calls that outlive an interruption.

What does not live here: anything about documents or jobs. Only the public stubs (``moragmeta.v1``) and
gRPC's own packages are used, so all of this works in a project that has never seen the service's code.
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from moragmeta.v1.databases_pb2_grpc import DatabaseServiceStub
from moragmeta.v1.documents_pb2_grpc import DocumentServiceStub
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub
from moragmeta.v1.servers_pb2_grpc import ServerServiceStub
from moragmeta.v1.workers_pb2_grpc import WorkerServiceStub

DEFAULT_TARGET: Final = "127.0.0.1:50051"
TLS_VARIABLES: Final = ("MORAG_CA_FILE", "MORAG_CLIENT_KEY_FILE", "MORAG_CLIENT_CERT_FILE")
DEADLINE_SECONDS: Final = 15.0
CHANNEL_OPTIONS: Final = (
    # A server that went away without a word is noticed, and one that is back is found soon.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

_REPEATABLE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_PASSING: Final = ("CONFLICT", "RATE_LIMITED")  # reasons with the status of what mostly does not pass

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


def target() -> str:
    """Return ``MORAG_TARGET``, or where this machine's own service listens (``MORAG_GRPC_ADDRESS``)."""
    for name in ("MORAG_TARGET", "MORAG_GRPC_ADDRESS"):
        if value := os.environ.get(name, "").strip():
            # What listens on every interface is called on this machine's own.
            return re.sub(r"^(0\.0\.0\.0|\*|\[::\]):", "127.0.0.1:", value)
    return DEFAULT_TARGET


def tls() -> grpc.ChannelCredentials | None:
    """Return what ``MORAG_CA_FILE`` and the files of a client's own certificate say; None is plaintext."""
    ca, key, certificate = (
        Path(file).read_bytes() if (file := os.environ.get(name)) else None for name in TLS_VARIABLES
    )
    if ca is None and (key or certificate):  # the API key would go in the clear
        sys.exit("a client's certificate is for TLS: set MORAG_CA_FILE too")
    return None if ca is None else grpc.ssl_channel_credentials(ca, key, certificate)


def open_channel() -> grpc.Channel:
    """Open a channel to the service, by TLS where the environment says so."""
    secure = tls()
    if secure is None:
        return grpc.insecure_channel(target(), options=CHANNEL_OPTIONS)
    return grpc.secure_channel(target(), secure, options=CHANNEL_OPTIONS)


def open_async_channel() -> grpc.aio.Channel:
    """Open a channel for asyncio, by TLS where the environment says so."""
    secure = tls()
    if secure is None:
        return grpc.aio.insecure_channel(target(), options=CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target(), secure, options=CHANNEL_OPTIONS)


def credentials() -> tuple[tuple[str, str], ...]:
    """Return the metadata that goes with every call; without ``MORAG_API_KEY`` the program ends."""
    key = os.environ.get("MORAG_API_KEY", "").strip()
    if not key:
        sys.exit("MORAG_API_KEY is not set: give it the key that the service printed at its first start")
    return (("x-api-key", key),)


class Connection:
    """The stubs that the examples use, over one channel."""

    def __init__(self) -> None:
        self._metadata = credentials()
        self._channel = open_channel()
        self.servers = ServerServiceStub(self._channel)
        self.databases = DatabaseServiceStub(self._channel)
        self.documents = DocumentServiceStub(self._channel)
        self.jobs = JobServiceStub(self._channel)
        self.workers = WorkerServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        *,
        patience: float = 60.0,
    ) -> _Response:
        """Call, and repeat while the service cannot be reached, for ``patience`` seconds at least.

        Only for calls that may be repeated: reads, reports of a job, and writes with a ``request_id``.

        Raises:
            grpc.RpcError: the service refused the call, or the patience has run out.
        """
        end, told = time.monotonic() + patience, False
        for pause in pauses():
            try:
                return method(request, timeout=DEADLINE_SECONDS, metadata=self._metadata)
            except grpc.RpcError as error:
                if not may_repeat(error) or time.monotonic() > end:
                    raise
                told = told or say_away(error)
                time.sleep(wait_of(error, pause))
        raise AssertionError("pauses() never ends")


def pauses() -> Iterator[float]:
    """Give the seconds to wait before each next try: longer and longer up to 5, never in step."""
    longest = 0.2
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311 - no secret, only spread
        longest = min(longest * 2, 5.0)


def may_repeat(error: grpc.RpcError) -> bool:
    """Return whether the same call may be answered differently in a moment."""
    return code(error) in _REPEATABLE or reason(error) in _PASSING


def say_away(error: grpc.RpcError) -> bool:
    """Say on stderr that no service answers, and return whether that is so; a busy one did answer."""
    away = code(error) in _REPEATABLE and not reason(error)
    if away:
        print(f"{target()} does not answer, retrying; set MORAG_TARGET if it is elsewhere", file=sys.stderr)
    return away


def code(error: Any) -> grpc.StatusCode:
    """Return the status code of an error; every error of a call has one."""
    status: grpc.StatusCode = error.code()
    return status


def info(error: Any) -> ErrorInfo:
    """Return the machine-readable reason and its metadata; empty where gRPC itself refused."""
    found = ErrorInfo()
    _unpack(error, found)
    return found


def reason(error: Any) -> str:
    """Return the reason: the name of a value of ``ErrorReason`` without its prefix, or nothing."""
    return info(error).reason


def wait_of(error: Any, pause: float) -> float:
    """Return for how many seconds to wait: those for which the service asks, where they are more."""
    found = RetryInfo()
    asked = found.retry_delay.ToTimedelta().total_seconds() if _unpack(error, found) else 0.0
    return max(asked, pause)  # never in step with others who were told the same


def explain(error: Any) -> str:
    """Return one line for people."""
    why = reason(error)
    return f"{code(error).name}{f' ({why})' if why else ''}: {error.details()}"


def _unpack(error: Any, wanted: ErrorInfo | RetryInfo) -> bool:
    status = rpc_status.from_call(error)
    return status is not None and any(detail.Unpack(wanted) for detail in status.details)
