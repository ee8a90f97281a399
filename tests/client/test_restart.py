"""What callers see of a process that ends and is started again: a pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from morag_client import connect
from moragmeta.v1 import users_pb2
from moragmeta.v1.users_pb2_grpc import UserServiceStub
from tests.processes import running

_ME = users_pb2.GetUserRequest(id="me")
_CALLERS = 8


class _Ending:
    """A server that cancels each first call, as gRPC does with what it has taken when a process ends."""

    def __init__(self) -> None:
        self.seen = 0
        method: Any = grpc.unary_unary_rpc_method_handler(
            self._answer, None, users_pb2.User.SerializeToString
        )
        handler = grpc.method_handlers_generic_handler("moragmeta.v1.UserService", {"GetUser": method})
        self._server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[handler])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _answer(self, _: bytes, context: Any) -> Any:
        self.seen += 1
        if self.seen == 1:
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        return users_pb2.User(id="me")

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def ending() -> Iterator[_Ending]:
    """Give such a server."""
    made = _Ending()
    yield made
    made.stop()


def test_a_call_that_grpc_cancelled_is_made_again(ending: _Ending) -> None:
    """It was not taken by the service, and so the channel repeats it as after UNAVAILABLE."""
    with connect(ending.target, "key") as channel:
        assert UserServiceStub(channel).GetUser(_ME).id == "me"
    assert ending.seen == 2


def test_what_the_caller_calls_off_is_not_made_again(ending: _Ending) -> None:
    """The caller's own cancellation is an end."""
    with connect(ending.target, "key") as channel:
        call = UserServiceStub(channel).GetUser.future(_ME)
        while not ending.seen:
            time.sleep(0.001)
        call.cancel()
        time.sleep(1)  # in which it would come again
    assert ending.seen == 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
def test_busy_callers_see_a_restart_as_a_pause(database_url: str, tmp_path: Path) -> None:
    """No call of theirs fails while the process is told to end and started again, time after time."""
    over = threading.Event()

    def call(target: str, key: str) -> int:
        made = 0
        with connect(target, key) as channel:
            stub = UserServiceStub(channel)
            while not over.is_set():
                stub.GetUser(_ME, wait_for_ready=True, timeout=60)
                made += 1
        return made

    with (
        running(database_url, tmp_path / "log") as (server, key),
        futures.ThreadPoolExecutor(_CALLERS) as pool,
    ):
        try:
            calls = [pool.submit(call, server.target, key) for _ in range(_CALLERS)]
            for _ in range(3):
                time.sleep(0.5)
                assert server.terminate() == 0
                server.start()
        finally:
            over.set()
        assert all(each.result(90) for each in calls)
