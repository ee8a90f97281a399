"""What the service is measured against, as methods of the same server.

Dispatched rivals go through the dispatcher like the service's own methods: key, access, rules, log. Bare
ones are handlers of gRPC and nothing else.
"""

from __future__ import annotations

import os
import time
from typing import Any

import grpc

from benchmarks.contract import BARE, DISPATCHED
from benchmarks.orm import OrmDriver
from benchmarks.raw import RawDriver
from morag_meta.auth.authenticator import KEY_HEADER, Authenticator
from morag_meta.auth.keys import KeyHasher
from morag_meta.db.statements import EVERYONE
from morag_meta.rpc.call import Call
from morag_meta.rpc.methods import composes
from moragmeta.v1 import documents_pb2, jobs_pb2


class DispatchedServicer:
    """The rivals under the dispatcher; see ``contract.py``."""

    SERVICE = DISPATCHED

    def __init__(self, raw: RawDriver, orm: OrmDriver) -> None:
        """Take the rivals' data paths."""
        self._raw = raw
        self._orm = orm

    @composes
    async def Authenticated(  # noqa: D102, N802 - see the contract
        self, request: documents_pb2.GetDocumentRequest, call: Call
    ) -> documents_pb2.Document:
        return documents_pb2.Document(id=request.id, owner_id=call.own)

    @composes
    async def RawGetDocument(  # noqa: D102, N802
        self, request: documents_pb2.GetDocumentRequest, call: Call
    ) -> documents_pb2.Document:
        return await self._raw.get_document(call.reach.owner_id, request.id)

    @composes
    async def OrmGetDocument(  # noqa: D102, N802
        self, request: documents_pb2.GetDocumentRequest, call: Call
    ) -> documents_pb2.Document:
        return await self._orm.get_document(call.reach.owner_id, request.id)

    @composes
    async def RawListDocuments(  # noqa: D102, N802
        self, request: documents_pb2.ListDocumentsRequest, call: Call
    ) -> documents_pb2.ListDocumentsResponse:
        return await self._raw.list_documents(call.owner_for(request.owner_id), request.page_size)

    @composes
    async def RawUpdateJobProgress(  # noqa: D102, N802
        self, request: jobs_pb2.UpdateJobProgressRequest, call: Call
    ) -> jobs_pb2.UpdateJobProgressResponse:
        return await self._raw.update_progress(call.reach.owner_id, request)


class BareMethods:
    """The rivals that are bare handlers, taking and giving bytes."""

    def __init__(self, raw: RawDriver, authenticator: Authenticator, hasher: KeyHasher) -> None:
        """Take what the rivals use."""
        self._raw = raw
        self._authenticator = authenticator
        self._hasher = hasher

    def handler(self) -> grpc.GenericRpcHandler:
        """Give the handlers for gRPC."""
        methods = {
            "Echo": self._echo,
            "GetDocument": self._get_document,
            "ListDocuments": self._list_documents,
            "UpdateJobProgress": self._update_progress,
            "CheckKey": self._check_key,
            "TimeKeyChecks": self._time_key_checks,
            "Pid": self._pid,
        }
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()
        }
        return grpc.method_handlers_generic_handler(BARE, handlers)

    async def _echo(self, data: bytes, context: Any) -> bytes:
        return data

    async def _get_document(self, data: bytes, context: Any) -> bytes:
        request = documents_pb2.GetDocumentRequest.FromString(data)
        return (await self._raw.get_document(EVERYONE, request.id)).SerializeToString()

    async def _list_documents(self, data: bytes, context: Any) -> bytes:
        request = documents_pb2.ListDocumentsRequest.FromString(data)
        return (await self._raw.list_documents(request.owner_id, request.page_size)).SerializeToString()

    async def _update_progress(self, data: bytes, context: Any) -> bytes:
        request = jobs_pb2.UpdateJobProgressRequest.FromString(data)
        return (await self._raw.update_progress(EVERYONE, request)).SerializeToString()

    async def _check_key(self, data: bytes, context: Any) -> bytes:
        """Look the key up at each call, as a server without a cache does."""
        metadata = dict(context.invocation_metadata())
        if not await self._raw.check_key(self._hasher.digest(metadata[KEY_HEADER])):
            raise PermissionError
        return data

    async def _time_key_checks(self, data: bytes, context: Any) -> bytes:
        """Check the caller's key so often, and answer how many microseconds each check took."""
        metadata = dict(context.invocation_metadata())
        count = int(data)
        started = time.perf_counter()
        for _ in range(count):
            await self._authenticator.authenticate(metadata)
        return str((time.perf_counter() - started) / count * 1e6).encode()

    async def _pid(self, data: bytes, context: Any) -> bytes:
        return str(os.getpid()).encode()
