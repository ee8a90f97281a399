"""Calls of GetDocument at a steady pace, from a process of their own, beside what else the server does.

Each call begins when it is due, whether or not the ones before have been answered: a caller that waited
for its answer would miss a stall but once. Latencies count from when the call was due.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from multiprocessing.connection import Connection as Pipe
from types import TracebackType
from typing import Final, Self

from benchmarks.data import Filled
from benchmarks.wire import Connection, call_headers, read_all
from morag_meta.auth.authenticator import KEY_HEADER
from moragmeta.v1 import documents_pb2

_PAUSE: Final = 0.005
_GET: Final = "/moragmeta.v1.DocumentService/GetDocument"

Timed = tuple[float, float]
"""When a call was due, on the clock of ``time.perf_counter``, and how long its answer took; in seconds."""


class Beside:
    """Calls for as long as the block; ``timed`` then holds all of them."""

    def __init__(self, port: int, filled: Filled) -> None:
        """Call a server of a filled database at a port of this machine."""
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(
            target=_call, args=(theirs, port, filled.key, filled.documents), daemon=True
        )
        self.timed: list[Timed] = []

    def __enter__(self) -> Self:
        """Begin, and return when the first call was answered."""
        self._process.start()
        self._ours.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and take what was measured."""
        self._ours.send(None)
        self.timed = self._ours.recv()
        self._process.join()


class _Pacer:
    """The caller within its process."""

    def __init__(self, port: int, key: str, documents: list[str]) -> None:
        self._headers = call_headers(_GET, (KEY_HEADER, key))
        requests = (documents_pb2.GetDocumentRequest(id=id).SerializeToString() for id in documents)
        self._requests = itertools.cycle(list(requests))
        self._connection = Connection(port, lambda *_: None, self._finish)
        self._due: dict[int, float] = {}
        self.timed: list[Timed] = []

    def call(self, due: float) -> None:
        """Begin a call, and read until the next one is due."""
        number = self._connection.call(self._headers, next(self._requests))
        self._due[number] = due
        read_all([self._connection], lambda: time.perf_counter() >= due + _PAUSE, look=_PAUSE / 10)

    def finish(self) -> None:
        """Wait for the answers that are missing."""
        read_all([self._connection], lambda: not self._due)
        self._connection.close()

    def _finish(self, number: int, ok: bool) -> None:  # noqa: FBT001 - the wire's own signature
        due = self._due.pop(number)
        # A call that failed was never answered.
        self.timed.append((due, time.perf_counter() - due if ok else float("inf")))


def _call(pipe: Pipe, port: int, key: str, documents: list[str]) -> None:
    pacer = _Pacer(port, key, documents)
    due = time.perf_counter()
    while not pacer.timed:
        pacer.call(due)
        due = time.perf_counter()
    pipe.send(None)
    while not pipe.poll():
        pacer.call(due)
        due += _PAUSE
    pacer.finish()
    pipe.send(pacer.timed)
