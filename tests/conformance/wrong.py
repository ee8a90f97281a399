"""A server that keeps no contract: it answers what a test tells it to, and otherwise empty messages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc


class Wrong(grpc.GenericRpcHandler):
    """Answers every method: with the bytes told by its name, refused by a function, or empty."""

    def __init__(self, **answers: Any) -> None:
        """Take bytes, or functions of the call's context, by the methods' names; ``every`` is for all."""
        self._answers = answers

    def service(self, handler_call_details: Any) -> Any:
        """Give the handler of a method."""
        name = handler_call_details.method.rpartition("/")[2]
        answer = self._answers.get(name, self._answers.get("every", b""))

        def unary(_: bytes, context: Any) -> Any:
            return answer if isinstance(answer, bytes) else answer(context)

        def stream(_: Any, context: Any) -> Iterator[bytes]:
            yield unary(b"", context)

        if name == "ServerReflectionInfo":
            return grpc.stream_stream_rpc_method_handler(stream)
        if name.startswith("Watch"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


@contextmanager
def wrong_server(**answers: Any) -> Iterator[str]:
    """Serve nonsense; give the address."""
    server = grpc.server(ThreadPoolExecutor(32), handlers=[Wrong(**answers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
