"""The stubs of one caller: each call carries the caller's credential, and a deadline."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message

from moragmeta.v1 import (
    api_keys_pb2_grpc,
    audit_pb2_grpc,
    databases_pb2_grpc,
    documents_pb2_grpc,
    exports_pb2_grpc,
    grants_pb2_grpc,
    jobs_pb2_grpc,
    quotas_pb2_grpc,
    servers_pb2_grpc,
    users_pb2_grpc,
    workers_pb2_grpc,
)

Metadata = tuple[tuple[str, str], ...]

# Far more than anything takes, so that a busy machine is not told as a wrong server.
CALL_SECONDS = 60.0
STREAM_SECONDS = 60.0
PACKAGE = "moragmeta.v1"


class Caller:
    """Whoever a credential stands for."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata = ()) -> None:
        """Use a channel that others use too; ``metadata`` is the credential, none for nobody."""
        self.channel: Any = grpc.intercept_channel(channel, _Credential(metadata))
        self.users = users_pb2_grpc.UserServiceStub(self.channel)
        self.api_keys = api_keys_pb2_grpc.ApiKeyServiceStub(self.channel)
        self.audit = audit_pb2_grpc.AuditServiceStub(self.channel)
        self.servers = servers_pb2_grpc.ServerServiceStub(self.channel)
        self.databases = databases_pb2_grpc.DatabaseServiceStub(self.channel)
        self.grants = grants_pb2_grpc.GrantServiceStub(self.channel)
        self.documents = documents_pb2_grpc.DocumentServiceStub(self.channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(self.channel)
        self.exports = exports_pb2_grpc.ExportServiceStub(self.channel)
        self.quotas = quotas_pb2_grpc.QuotaServiceStub(self.channel)
        self.workers = workers_pb2_grpc.WorkerServiceStub(self.channel)

    def send(self, method: str, body: bytes, metadata: Metadata = ()) -> bytes:
        """Call ``Service.Method`` with bytes, whether they are a message of it or not; give its bytes."""
        call = self.channel.unary_unary(f"/{PACKAGE}.{method.replace('.', '/')}")
        answer: bytes = call(body, metadata=metadata)
        return answer


def answered(multicallable: Any, request: Message) -> tuple[Any, dict[str, str | bytes]]:
    """Call a method; give its answer and its trailing metadata."""
    answer, call = multicallable.with_call(request)
    return answer, dict(call.trailing_metadata() or ())


def with_key(secret: str) -> Metadata:
    """Return the metadata of a caller with an API key."""
    return (("x-api-key", secret),)


def with_token(token: str) -> Metadata:
    """Return the metadata of a caller with an access token, or an API key sent as one."""
    return (("authorization", f"Bearer {token}"),)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Credential(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with(details, CALL_SECONDS), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with(details, STREAM_SECONDS), request)

    def _with(self, details: Any, seconds: float) -> Any:
        metadata = (*self._metadata, *(details.metadata or ()))
        return _Details(
            details.method,
            details.timeout or seconds,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
