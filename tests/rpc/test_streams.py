"""Open streams: their heartbeat, their age, readers that do not read, and how a drain ends them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from morag_meta.errors import MetaError, Reason, Unavailable
from morag_meta.rpc.drain import PARTING_SECONDS
from morag_meta.rpc.stream import StreamOptions
from tests.refusals import refused
from tests.rpc.trial import Answer, Question, Trial, trying

HEARTBEAT, WRITE_TIMEOUT, MAX_AGE = 0.6, 1.0, 2.5
TICK = 0.25  # how often streams are looked after
SLACK = 5.0  # what a busy machine may add
LARGE = Answer(text="x" * 65_536).SerializeToString()


@pytest.fixture
def timed(tmp_path: Any) -> Iterator[Trial]:
    """Serve the trial service with short times."""
    options = StreamOptions(heartbeat=HEARTBEAT, write_timeout=WRITE_TIMEOUT, max_age=MAX_AGE)
    with trying(f"sqlite:///{tmp_path / 'trial.db'}", options) as started:
        yield started


@pytest.fixture
def ageless(tmp_path: Any) -> Iterator[Trial]:
    """Serve the trial service with streams that neither age nor time out while a test runs."""
    with trying(f"sqlite:///{tmp_path / 'trial.db'}") as started:
        yield started


@contextlib.contextmanager
def _with(tmp_path: Any, **options: float) -> Iterator[Trial]:
    with trying(f"sqlite:///{tmp_path / 'trial.db'}", StreamOptions(**options)) as started:  # type: ignore[arg-type]
        yield started


async def _idle(request: Any, call: Any, stream: Any) -> None:
    """Send a heartbeat whenever one is due, and nothing else."""
    while True:
        stream.check()
        if stream.heartbeat_due:
            await stream.send(Answer(text="heartbeat").SerializeToString())
        await stream.wait()


class _Flood:
    """Sends as fast as the reader takes it, and notes how that ended."""

    def __init__(self) -> None:
        self.error: MetaError | None = None
        self.sent = 0
        self.over = threading.Event()

    async def __call__(self, request: Any, call: Any, stream: Any) -> None:
        try:
            while True:
                await stream.send(LARGE)
                self.sent += 1
        except MetaError as error:
            self.error = error
            raise
        finally:
            self.over.set()

    def until_stuck(self) -> None:
        """Wait until the reader's buffers are full."""
        seen = -1
        while seen != self.sent or not self.sent:
            seen = self.sent
            time.sleep(0.2)


def test_a_heartbeat_comes_at_its_interval(tmp_path: Any) -> None:
    """While nothing happens the reader hears a heartbeat after each interval, early by nothing."""
    silences: list[float] = []

    async def idle(request: Any, call: Any, stream: Any) -> None:
        sent = time.monotonic()
        while True:
            if stream.heartbeat_due:
                silences.append(time.monotonic() - sent)
                sent = time.monotonic()
                await stream.send(Answer(text="heartbeat").SerializeToString())
            await stream.wait()

    with _with(tmp_path, heartbeat=HEARTBEAT) as trial:
        trial.does(idle)
        frames = trial.watch()(Question(), timeout=30)
        assert [next(frames).text for _ in range(4)] == ["heartbeat"] * 4
        frames.cancel()
    assert min(silences[1:]) >= HEARTBEAT
    assert max(silences) < HEARTBEAT + TICK + SLACK


def test_what_is_sent_puts_the_heartbeat_off(tmp_path: Any) -> None:
    """From each message that a stream sends on, the next heartbeat is due after a whole interval."""

    async def busy(request: Any, call: Any, stream: Any) -> None:
        for _ in range(8):
            assert not stream.heartbeat_due
            stream.sent_at -= 61.0  # as if it were that long ago
            assert stream.heartbeat_due
            await stream.send(Answer(text="event").SerializeToString())

    with _with(tmp_path, heartbeat=60.0) as trial:
        trial.does(busy)
        assert [frame.text for frame in trial.watch()(Question(), timeout=30)] == ["event"] * 8


def test_a_stream_ends_at_its_age(timed: Trial) -> None:
    """At the maximum age, less at most a tenth, streams end with UNAVAILABLE, and not all at once."""
    timed.does(_idle)

    def age(_: int) -> float:
        began = time.monotonic()
        with refused("UNAVAILABLE", "STREAM_AGED"):
            list(timed.watch()(Question(), timeout=30))
        return time.monotonic() - began

    with ThreadPoolExecutor(20) as pool:
        ages = list(pool.map(age, range(20)))
    assert min(ages) > MAX_AGE * 0.9 - 0.05
    assert max(ages) < MAX_AGE + TICK + SLACK
    assert len(timed.streams) == 0


def test_a_reader_that_never_reads_is_cut(tmp_path: Any) -> None:
    """When a reader takes nothing for the write timeout its stream ends, and it is told why."""
    flood = _Flood()
    with _with(tmp_path, write_timeout=WRITE_TIMEOUT) as trial:
        trial.does(flood)
        began = time.monotonic()
        frames = trial.watch()(Question(), timeout=30)
        assert flood.over.wait(WRITE_TIMEOUT + TICK + 2 * SLACK)
        assert time.monotonic() - began >= WRITE_TIMEOUT
        assert flood.error is not None
        assert flood.error.reason is Reason.READER_TOO_SLOW
        with refused("UNAVAILABLE", "READER_TOO_SLOW"):
            for _ in frames:
                pass
        assert len(trial.streams) == 0


def test_a_slow_reader_is_not_cut(tmp_path: Any) -> None:
    """A reader that takes something now and then, sooner than the write timeout, keeps its stream."""
    flood, patience = _Flood(), 4.0
    with _with(tmp_path, write_timeout=patience, max_age=1.5 * patience) as trial:
        trial.does(flood)
        frames = trial.watch()(Question(), timeout=30)
        with refused("UNAVAILABLE", "STREAM_AGED"):
            while True:
                for _ in range(60):
                    next(frames)
                time.sleep(patience / 8)


def test_a_drain_does_not_wait_for_a_stuck_reader(ageless: Trial) -> None:
    """A drain ends a stream whose reader takes nothing at once, far before the write timeout."""
    flood = _Flood()
    ageless.does(flood)
    frames = ageless.watch()(Question(), timeout=30)
    flood.until_stuck()
    began = time.monotonic()
    ageless.drain(grace=15)
    assert time.monotonic() - began < PARTING_SECONDS + 2 * SLACK
    assert flood.error is not None
    assert flood.error.reason is Reason.SERVER_DRAINING
    with pytest.raises(grpc.RpcError) as caught:
        list(frames)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_a_call_in_flight_is_waited_for(ageless: Trial) -> None:
    """A drain lets a call that is running finish, however long the parting of ended ones is."""
    begun = threading.Event()

    async def linger(*_: Any) -> Any:
        begun.set()
        await asyncio.sleep(PARTING_SECONDS + 1)
        return Answer(id="done")

    ageless.does(linger)
    answer = ageless.unary("Compose").future(Question(), timeout=10)
    assert begun.wait(20)
    ageless.drain(grace=10)
    assert answer.result().id == "done"


def test_a_call_beyond_the_grace_is_cancelled(ageless: Trial) -> None:
    """A call that takes longer than the grace is cut, and the drain ends in time."""
    begun = threading.Event()

    async def linger(*_: Any) -> Any:
        begun.set()
        await asyncio.sleep(60)

    ageless.does(linger)
    answer = ageless.unary("Compose").future(Question(), timeout=60)
    assert begun.wait(20)
    started = time.monotonic()
    ageless.drain(grace=1.5)
    assert 1.5 <= time.monotonic() - started < 1.5 + SLACK
    assert answer.code() is grpc.StatusCode.UNAVAILABLE


def test_a_drain_ends_idle_streams_and_refuses_new_ones(ageless: Trial) -> None:
    """At a drain every open stream ends with SERVER_DRAINING, and a new one is refused with the same."""
    ageless.does(_idle)
    opened = [ageless.watch()(Question(), timeout=20) for _ in range(10)]
    _until(lambda: len(ageless.streams) == 10)
    ageless.on_loop(_at_once(ageless.streams.drain))
    for frames in [*opened, ageless.watch()(Question(), timeout=20)]:
        with refused("UNAVAILABLE", "SERVER_DRAINING"):
            list(frames)
    assert len(ageless.streams) == 0


def test_an_ending_reaches_a_stream_that_sleeps(ageless: Trial) -> None:
    """Ending all streams wakes those that sleep, each with an error of its own."""
    ageless.does(_idle)
    opened = [ageless.watch()(Question(), timeout=20) for _ in range(3)]
    _until(lambda: len(ageless.streams) == 3)
    made: list[Unavailable] = []

    def gone() -> Unavailable:
        made.append(Unavailable("gone", reason=Reason.DATABASE_UNAVAILABLE, retry_after=1))
        return made[-1]

    ageless.on_loop(_at_once(lambda: ageless.streams.end_all(gone)))
    for frames in opened:
        with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE"):
            list(frames)
    assert len({id(error) for error in made}) == 3


def test_a_reader_that_leaves_is_forgotten(ageless: Trial) -> None:
    """A stream whose client cancels, or whose connection goes, is not kept."""
    ageless.does(_idle)
    channel = grpc.insecure_channel(ageless.target)
    first = ageless.watch()(Question(), timeout=20)
    second = ageless.watch(channel)(Question(), timeout=20)
    _until(lambda: len(ageless.streams) == 2)
    first.cancel()
    _until(lambda: len(ageless.streams) == 1)
    channel.close()
    _until(lambda: len(ageless.streams) == 0)
    assert not second.is_active()


def test_a_wake_before_the_sleep_is_not_lost(ageless: Trial) -> None:
    """A stream that is woken while it is busy looks again instead of sleeping."""

    async def behave(request: Any, call: Any, stream: Any) -> None:
        stream.wake()
        stream.wake()
        await stream.wait()  # returns at once, and uses both wakes up
        await stream.send(Answer(id="awake").SerializeToString())
        await stream.wait()

    ageless.does(behave)
    frames = ageless.watch()(Question(), timeout=5)
    assert next(frames).id == "awake"
    with pytest.raises(grpc.RpcError) as caught:
        next(frames)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def _at_once(act: Any) -> None:
    act()


def _until(true: Any, seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)
