"""gRPC server reflection (v1alpha), for tools without the protos; no key is needed.

What is answered is the library's; requests are read as those of every service, so that bytes that are no
message are no error of the server's.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from morag_meta.errors import Invalid
from morag_meta.rpc.decoding import decode
from morag_meta.rpc.status import abort

_serialize: Any = reflection_pb2.ServerReflectionResponse.SerializeToString
Context = grpc.aio.ServicerContext[Any, Any]


def register(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Tell of services, and of reflection itself, on a server that has not started."""
    tells: Any = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME))

    async def answer(requests: AsyncIterable[bytes], context: Context) -> AsyncIterator[Any]:
        async for told in tells.ServerReflectionInfo(_read(requests, context), context):
            yield told

    method: Any = grpc.stream_stream_rpc_method_handler(answer, None, _serialize)
    handler = grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handler,))


async def _read(requests: AsyncIterable[bytes], context: Context) -> AsyncIterator[Any]:
    async for data in requests:
        try:
            request = decode(reflection_pb2.ServerReflectionRequest, data)
        except Invalid as error:
            await abort(context, error)
        yield request
