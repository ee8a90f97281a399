"""A service of the tests' own behind the real dispatcher, whose methods do what a test tells them.

It shows what the wrapper of every call does when a method misbehaves, which no real method may.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from morag_meta.audit.writer import AuditWriter
from morag_meta.auth.authenticator import Authenticator
from morag_meta.auth.epoch import EpochWatch
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.rates import Rates
from morag_meta.auth.tokens import Tokens
from morag_meta.auth.usage import KeyUsage
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.rpc.call import Call
from morag_meta.rpc.dispatch import Dispatcher
from morag_meta.rpc.drain import drain
from morag_meta.rpc.methods import composes, reads, streams, writes
from morag_meta.rpc.stream import StreamOptions
from morag_meta.rpc.streams import Streams
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import options_pb2

PUBLIC: Final = options_pb2.Access(public=True)
_KEY: Final = b"trial" * 8


def declare(package: str, methods: dict[str, options_pb2.Access | None], *, streaming: str = "") -> str:
    """Add a service to the process's descriptors; give its full name.

    Each method takes a ``Question`` (request_id, text, number) and gives an ``Answer`` (id, text).
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.append("moragmeta/v1/options.proto")
    field = descriptor_pb2.FieldDescriptorProto
    for name, fields in (("Question", ("request_id", "text", "number")), ("Answer", ("id", "text"))):
        message = file.message_type.add(name=name)
        for number, title in enumerate(fields, 1):
            kind = field.TYPE_INT32 if title == "number" else field.TYPE_STRING
            message.field.add(name=title, number=number, type=kind, label=field.LABEL_OPTIONAL)
    declared = file.service.add(name="Trial")
    for name, access in methods.items():
        method = declared.method.add(
            name=name,
            input_type=f".{package}.Question",
            output_type=f".{package}.Answer",
            server_streaming=name == streaming,
        )
        if access is not None:
            method.options.Extensions[options_pb2.access].CopyFrom(access)
    descriptor_pool.Default().Add(file)
    return f"{package}.Trial"


_METHODS: Final = ("Read", "ReadPoint", "ReadSnapshot", "Write", "WriteOnce", "Compose", "Watch")
SERVICE_NAME: Final = declare("trial", dict.fromkeys(_METHODS, PUBLIC), streaming="Watch")


def message(name: str, package: str = "trial") -> type[Message]:
    """Give the class of a trial message."""
    found = descriptor_pool.Default().FindMessageTypeByName(f"{package}.{name}")
    return GetMessageClass(found)


Question: Final[Any] = message("Question")
Answer: Final[Any] = message("Answer")


def _replay(servicer: Any, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> Any:
    return Answer(id=receipt["id"], text="replayed")


def _runs(mark: Callable[[Any], Any]) -> Any:
    def run(servicer: TrialServicer, *arguments: Any) -> Any:
        return servicer.behavior(*arguments)

    return mark(run)


class TrialServicer:
    """Does what ``behavior`` does, in each way in which a method can be run."""

    SERVICE = SERVICE_NAME
    Read = _runs(reads())
    ReadPoint = _runs(reads(point=True))
    ReadSnapshot = _runs(reads(snapshot=True))
    Write = _runs(writes(replay=_replay))
    WriteOnce = _runs(writes(replay=_replay))
    Compose = _runs(composes)
    Watch = _runs(streams)

    def __init__(self) -> None:
        """Begin with an empty answer."""
        self.behavior: Callable[..., Any] = lambda *_: Answer()


class Trial:
    """A running server of the trial service on a database."""

    def __init__(self, url: str, options: StreamOptions) -> None:
        """Serve on a free port; ``options`` are the times of its streams."""
        self.database = Database.open(url)
        self.servicer = TrialServicer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="trial", daemon=True)
        self._thread.start()
        port, self._task = self.on_loop(self._start(options))
        self.target = f"127.0.0.1:{port}"
        self.channel = grpc.insecure_channel(self.target)

    async def _start(self, options: StreamOptions) -> tuple[int, asyncio.Task[None]]:
        epochs, hasher = EpochWatch(self.database), KeyHasher(_KEY)
        tokens = Tokens(_KEY * 2, _KEY, algorithm="HS256", session_life=dt.timedelta(hours=1))
        usage = KeyUsage(self.database, interval=60)
        rates = Rates.unlimited()
        authenticator = Authenticator(self.database, hasher, tokens, epochs, usage, rates)
        self.streams = Streams(options, authenticator, lambda: epochs.newest)
        self.dispatcher = Dispatcher(
            self.database,
            authenticator,
            rates,
            usage,
            self.streams,
            AuditWriter(self.database),
            KeyHasher(_KEY),
        )
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self.dispatcher.handler(self.servicer),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port, asyncio.create_task(self.streams.run())

    def on_loop(self, work: Any) -> Any:
        """Run a coroutine on the server's event loop and give its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def does(self, behavior: Callable[..., Any]) -> None:
        """Have every method do this from now on."""
        self.servicer.behavior = behavior

    def unary(self, method: str) -> Any:
        """Give the stub of a unary method, which answers with an ``Answer``."""
        return self.channel.unary_unary(
            f"/{SERVICE_NAME}/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=Answer.FromString,
        )

    def watch(self, channel: grpc.Channel | None = None) -> Any:
        """Give the stub of the stream."""
        return (channel or self.channel).unary_stream(
            f"/{SERVICE_NAME}/Watch",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=Answer.FromString,
        )

    def drain(self, grace: float) -> None:
        """End the streams and stop serving, as a server at SIGTERM does."""

        async def stop() -> None:
            self.streams.drain()
            await drain(self._server, lambda: self.dispatcher.in_flight, grace)

        self.on_loop(stop())

    def close(self) -> None:
        """Stop the server and its loop."""
        self.channel.close()
        self.on_loop(self._server.stop(0))
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        self._loop.close()
        self.database.close()


@contextmanager
def trying(url: str, options: StreamOptions | None = None) -> Iterator[Trial]:
    """Serve the trial service on a fresh database."""
    migrate.upgrade(url)
    started = Trial(url, options or StreamOptions())
    try:
        yield started
    finally:
        started.close()
