"""What surrounds every call: its id, its errors, its line in the log, and who is refused at start."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
import uuid
from typing import Any

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from morag_meta.db.faults import Disconnected
from morag_meta.errors import Reason, Unavailable
from morag_meta.jobs.servicer import JobServicer
from morag_meta.rpc import access
from morag_meta.rpc.access import UndeclaredAccess
from morag_meta.rpc.call import Call
from morag_meta.rpc.fit import UnfitServicer, describe
from morag_meta.rpc.methods import reads, streams, writes
from morag_meta.server.app import App
from moragmeta.v1 import options_pb2
from tests.refusals import refused
from tests.rpc.trial import PUBLIC, Answer, Question, Trial, declare
from tests.service import Service

UNARY = ("Read", "ReadPoint", "ReadSnapshot", "Write", "Compose")
SECRET = "hunter2-of-the-driver"


class Unforeseen(Exception):
    """What nobody reckoned with."""


def _fail(*_: Any) -> Any:
    raise Unforeseen(SECRET)


async def _fail_later(*_: Any) -> Any:
    raise Unforeseen(SECRET)


def _call(trial: Trial, method: str, request: Any = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    """Call a unary method; give its answer and its trailing metadata."""
    answer, call = trial.unary(method).with_call(request or Question(), timeout=10, **options)
    return answer, dict(call.trailing_metadata())


def _answering(method: str) -> Any:
    async def later(*_: Any) -> Any:
        return Answer(id="1")

    return later if method == "Compose" else lambda *_: Answer(id="1")


@pytest.mark.parametrize("method", UNARY)
def test_a_sent_request_id_comes_back(trial: Trial, method: str) -> None:
    """The x-request-id that a client sends is the call's id, and comes back in the trailers."""
    trial.does(_answering(method))
    sent = "a" * 64
    assert _call(trial, method, metadata=(("x-request-id", sent),))[1]["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "has a space", "x" * 65])
def test_an_unusable_request_id_is_replaced(trial: Trial, sent: str) -> None:
    """A request id that is missing, too long or not plain visible text is replaced by a UUIDv7 of ours."""
    trial.does(_answering("Read"))
    metadata = (("x-request-id", sent),) if sent else ()
    given = _call(trial, "Read", metadata=metadata)[1]["x-request-id"]
    assert uuid.UUID(given).version == 7


def test_an_error_carries_the_request_id_too(trial: Trial) -> None:
    """A refused call has its id in the trailers, and so has a refused stream."""
    trial.does(_fail)
    with pytest.raises(grpc.RpcError) as caught:
        _call(trial, "Read", metadata=(("x-request-id", "mine"),))
    error: Any = caught.value
    assert dict(error.trailing_metadata())["x-request-id"] == "mine"
    trial.does(_fail_later)
    with pytest.raises(grpc.RpcError) as caught:
        list(trial.watch()(Question(), metadata=(("x-request-id", "mine"),), timeout=10))
    error = caught.value
    assert dict(error.trailing_metadata())["x-request-id"] == "mine"


@pytest.mark.parametrize("method", [*UNARY, "Watch"])
def test_the_unforeseen_is_internal_and_says_nothing(trial: Trial, method: str) -> None:
    """A method that raises what nobody reckoned with answers INTERNAL, its id and no more."""
    trial.does(_fail_later if method in ("Compose", "Watch") else _fail)
    with capture_logs() as logs, refused("INTERNAL", "INTERNAL") as refusal:
        if method == "Watch":
            list(trial.watch()(Question(), metadata=(("x-request-id", "mine"),), timeout=10))
        else:
            _call(trial, method, metadata=(("x-request-id", "mine"),))
    assert refusal.message == "internal error"
    assert refusal.metadata == {"request_id": "mine"}
    (told,) = [line for line in logs if line["event"] == "unforeseen error"]
    assert (told["request_id"], told["exc_info"]) == ("mine", True)


def test_the_traceback_of_the_unforeseen_is_logged(trial: Trial) -> None:
    """The log has the whole traceback, so that the id in the client's hands leads to the line of code."""
    kept = structlog.get_config()
    lines: list[str] = []

    def keep(logger: Any, name: str, event: Any) -> Any:
        lines.append(str(event))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.processors.format_exc_info, keep])
    try:
        trial.does(_fail)
        with refused("INTERNAL", "INTERNAL"):
            _call(trial, "Write")
    finally:
        structlog.configure(**kept)
    (text,) = [line for line in lines if "unforeseen error" in line]
    assert "in _fail" in text
    assert "Unforeseen" in text


def test_a_stream_that_fails_midway_gives_what_it_sent(trial: Trial) -> None:
    """What was sent before the failure arrives, and then the status with its details."""

    async def send_then_fail(request: Any, call: Call, stream: Any) -> None:
        await stream.send(Answer(id="1").SerializeToString())
        raise Unforeseen(SECRET)

    trial.does(send_then_fail)
    given = trial.watch()(Question(), timeout=10)
    assert next(given).id == "1"
    with refused("INTERNAL", "INTERNAL"):
        next(given)
    assert len(trial.streams) == 0


def test_a_domain_error_keeps_its_words(trial: Trial) -> None:
    """An error of the domain reaches the client with its message, reason and metadata."""

    def refuse(*_: Any) -> Any:
        raise Unavailable("no more", reason=Reason.SERVER_BUSY, metadata={"limit": "3"}, retry_after=2.5)

    trial.does(refuse)
    with refused("UNAVAILABLE", "SERVER_BUSY") as refusal:
        _call(trial, "Write")
    assert (refusal.message, refusal.metadata) == ("no more", {"limit": "3"})


def test_every_call_has_one_line_in_the_log(trial: Trial) -> None:
    """Method, code, time, id and peer of each call are logged once, with the reason of a refusal."""
    trial.does(_answering("Read"))
    with capture_logs() as logs:
        _call(trial, "Read", metadata=(("x-request-id", "good"),))
        trial.does(_fail)
        with refused("INTERNAL", "INTERNAL"):
            _call(trial, "Read", metadata=(("x-request-id", "bad"),))
    lines = {line["request_id"]: line for line in logs if line["event"] == "call"}  # of other servers too
    assert lines["good"]["code"] == "OK"
    assert lines["good"]["method"] == "Trial.Read"
    assert lines["good"]["ms"] >= 0
    assert (lines["bad"]["code"], lines["bad"]["reason"]) == ("INTERNAL", "INTERNAL")
    assert len([line for line in logs if line["event"] == "call" and line["method"] == "Trial.Read"]) == 2


def test_a_cancelled_call_is_logged_as_such(trial: Trial) -> None:
    """A call whose client left is no error of ours: its line says CANCELLED and no traceback is written."""
    begun = threading.Event()

    async def linger(*_: Any) -> Any:
        begun.set()
        await asyncio.sleep(30)

    trial.does(linger)
    with capture_logs() as logs:
        call = trial.unary("Compose").future(Question(), metadata=(("x-request-id", "gone"),))
        assert begun.wait(20)
        call.cancel()
        limit = time.monotonic() + 20
        while not any(line.get("request_id") == "gone" for line in logs):
            assert time.monotonic() < limit
            time.sleep(0.01)
    told = [(line["event"], line.get("code")) for line in logs if line.get("request_id") == "gone"]
    assert told == [("call", "CANCELLED")]
    assert not [line for line in logs if line["event"] == "unforeseen error"]


def test_a_stream_that_ends_just_as_its_client_leaves_is_no_error(
    trial: Trial, caplog: pytest.LogCaptureFixture
) -> None:
    """Where gRPC knows that the client has left, and has not told yet, it takes no status: nobody minds."""
    caplog.set_level(logging.DEBUG, "grpc")
    begun, left = threading.Event(), threading.Event()

    async def end_late(*_: Any) -> Any:
        begun.set()
        assert left.wait(20)
        time.sleep(1.5)  # noqa: ASYNC251 - so that the event loop hears of nothing
        raise Unavailable("it ends", reason=Reason.STREAM_AGED)

    trial.does(end_late)
    with capture_logs() as logs, grpc.insecure_channel(trial.target) as channel:
        call = trial.watch(channel)(Question(), metadata=(("x-request-id", "gone"),))
        assert begun.wait(20)
        call.cancel()
        channel.close()
        left.set()
        limit = time.monotonic() + 20
        while not any(line.get("request_id") == "gone" for line in logs):
            assert time.monotonic() < limit
            time.sleep(0.01)
    trial.does(_answering("Read"))
    _call(trial, "Read")  # what the loop had to say it has said by now
    records = [record for record in caplog.records if record.name.startswith("grpc")]
    said = {record.getMessage(): record.levelno for record in records}
    assert "RPC cancelled for servicer method [/trial.Trial/Watch]" in said
    assert max(said.values()) < logging.WARNING


def test_an_answer_that_is_no_message_is_internal(trial: Trial) -> None:
    """A method that answers with nothing at all is our fault, and is said to be so."""
    trial.does(lambda *_: None)
    with refused("INTERNAL", "INTERNAL"):
        _call(trial, "Read")


def _servicer(**marks: Any) -> Any:
    """Make a servicer whose methods do nothing, each with its mark."""
    return type("Servicer", (), {name: mark(lambda *_: None) for name, mark in marks.items()})()


def test_a_method_without_access_is_refused_at_start() -> None:
    """A servicer whose method does not say in the proto who may call it cannot be served."""
    silent = declare("trial.silent", {"Silent": None})
    neither = declare("trial.neither", {"Neither": options_pb2.Access(scopes=["trial:read"])})

    servicer = _servicer(Silent=reads(), Neither=reads())
    for name in (silent, neither):
        with pytest.raises(UndeclaredAccess, match="does not declare its access"):
            describe(servicer, access.service(name).methods[0])


def test_a_servicer_that_does_not_fit_is_refused_at_start() -> None:
    """Missing, unmarked, wrongly streaming and unreplayable methods are each named."""
    servicer = _servicer(
        Unmarked=lambda run: run, NotStreaming=streams, Streaming=reads(), Unreplayable=writes()
    )
    names = ("Missing", "Unmarked", "NotStreaming", "Streaming", "Unreplayable")
    declared = access.service(declare("trial.unfit", dict.fromkeys(names, PUBLIC), streaming="Streaming"))
    for method in declared.methods:
        with pytest.raises(UnfitServicer, match=method.name):
            describe(servicer, method)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True, scope="session")
def test_a_server_whose_servicer_lacks_a_method_does_not_start(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole server refuses to start when one of its services lacks a method."""
    monkeypatch.delattr(JobServicer, "RetryJob")
    with pytest.raises(UnfitServicer, match=r"JobService\.RetryJob"):
        App(service.settings)


def _living_calls() -> int:
    return sum(isinstance(each, Call) for each in gc.get_objects())


@pytest.mark.parametrize("method", ["Read", "Write", "Compose", "Watch"])
@pytest.mark.parametrize("error", [None, Unavailable, Disconnected])
def test_what_a_call_held_is_freed_when_it_ends(
    trial: Trial, method: str, error: type[Unavailable] | None
) -> None:
    """A call that ended is not kept by its own error until garbage is collected, nor is its request."""

    def work(*_: Any) -> Any:
        if error is not None:
            raise error("away", reason=Reason.DATABASE_UNAVAILABLE)
        return Answer(id="1")

    async def later(*given: Any) -> Any:
        return work(*given)

    trial.does(work if method in ("Read", "Write") else later)
    gc.collect()
    gc.disable()
    before = _living_calls()  # those of streams that are open at other servers
    try:
        for _ in range(10):
            with contextlib.suppress(grpc.RpcError):
                if method == "Watch":
                    list(trial.watch()(Question(), timeout=10))
                else:
                    _call(trial, method)
        kept = _living_calls() - before
    finally:
        gc.enable()
    assert kept < 4
