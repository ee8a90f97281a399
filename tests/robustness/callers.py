"""A client as the contract wants it: it goes to whichever server answers, and repeats what it may."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from moragmeta.v1 import documents_pb2_grpc, jobs_pb2_grpc, workers_pb2_grpc
from tests.robustness.history import Operation
from tests.robustness.recorder import Recorder

AGAIN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "ABORTED", "RESOURCE_EXHAUSTED")
"""Codes after which a call is repeated: they come of faults, or ask for it."""
_TIMEOUT = 5.0
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)


def connect(target: str) -> grpc.Channel:
    """Open a connection of one's own, which comes back quickly once it was lost."""
    return grpc.insecure_channel(target, options=_OPTIONS)


def read_error(error: grpc.RpcError) -> tuple[str, str]:
    """Give code and reason of an error."""
    caught: Any = error
    info = error_details_pb2.ErrorInfo()
    data = dict(caught.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(data).details:
        if detail.Unpack(info):
            return caught.code().name, info.reason
    return caught.code().name, ""


class Refused(Exception):
    """A call was refused for good, or given up; ``code`` and ``reason`` say why."""

    def __init__(self, code: str, reason: str) -> None:
        """Keep both."""
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Caller:
    """One client of several servers, which writes down what it asked and what came of it."""

    def __init__(self, name: str, targets: Sequence[str], key: str, recorder: Recorder, seed: str) -> None:
        """Prepare; ``targets`` are the servers' addresses."""
        self.name = name
        self.chance = random.Random(seed)  # noqa: S311 - which way a run goes
        self.stop = threading.Event()
        self.metadata = (("x-api-key", key),)
        self.recorder = recorder
        self.channels = [connect(target) for target in targets]
        self._stubs = [
            (
                jobs_pb2_grpc.JobServiceStub(channel),
                workers_pb2_grpc.WorkerServiceStub(channel),
                documents_pb2_grpc.DocumentServiceStub(channel),
            )
            for channel in self.channels
        ]
        self.turn = self.chance.randrange(len(targets))

    def new_id(self) -> str:
        """Make a request id."""
        return f"{self.chance.getrandbits(96):024x}"

    def stub(self, method: str) -> Any:
        """Give a method of the server whose turn it is."""
        stubs = self._stubs[self.turn % len(self._stubs)]
        return next(getattr(stub, method) for stub in stubs if hasattr(stub, method))

    def call(
        self,
        method: str,
        request: Any,
        note: dict[str, Any] | None = None,
        read: Callable[[Any], dict[str, Any]] = lambda _: {},
        timeout: float = _TIMEOUT,
    ) -> Any:
        """Call until it is answered, and write down ``note`` and what ``read`` takes from the answer.

        Raises:
            Refused: the service said no, or the run ended first.
        """
        start = time.monotonic()
        while True:
            try:
                answer = self.stub(method)(request, timeout=timeout, metadata=self.metadata)
            except grpc.RpcError as error:
                code, reason = read_error(error)
                self.turn += 1
                if code in AGAIN and not self.stop.is_set():
                    time.sleep(self.chance.uniform(0.02, 0.2))
                    continue
                self._write_down(method, note, start, code, reason, {})
                raise Refused(code, reason) from None
            except ValueError:  # the connection was closed: the run is over
                raise Refused("CANCELLED", "") from None
            self._write_down(method, note, start, "OK", "", read(answer))
            return answer

    def note(self, method: str, note: dict[str, Any]) -> None:
        """Write down that something is about to be asked, of whose end nothing is known yet."""
        self._write_down(method, note, time.monotonic(), "UNKNOWN", "", {})

    def _write_down(
        self,
        method: str,
        note: dict[str, Any] | None,
        start: float,
        code: str,
        reason: str,
        answer: dict[str, Any],
    ) -> None:
        operation = Operation(self.name, method, note or {}, start, time.monotonic(), code, reason, answer)
        self.recorder.add(operation)

    def close(self) -> None:
        """Disconnect."""
        for channel in self.channels:
            channel.close()
