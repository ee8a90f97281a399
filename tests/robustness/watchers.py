"""Clients that watch: they break off at random, come back with a token, and write down every frame."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from moragmeta.v1 import jobs_pb2 as pb
from tests.robustness.callers import Caller, read_error
from tests.robustness.history import Connection, Filter, Frame
from tests.robustness.recorder import Recorder, job_of

_HOLDING_ON = 60.0
"""Seconds after which a stream is opened anew at the latest."""


@dataclass(frozen=True, slots=True)
class Habit:
    """How a watcher watches."""

    filter: Filter = field(default_factory=Filter)
    snapshot: bool = False
    conflate: bool = False
    pause: float = 0.0
    """Seconds that it takes for each frame."""
    away: float = 0.0
    """Seconds, at most, that it stays away between two streams."""
    restless: bool = True
    """Whether it breaks off at random."""
    stops: bool = False
    """Whether it reads nothing while it is told so."""


class Watcher:
    """A client of WatchJobs."""

    def __init__(
        self,
        name: str,
        targets: Sequence[str],
        key: str,
        recorder: Recorder,
        seed: int,
        habit: Habit,
        reading: threading.Event | None = None,
    ) -> None:
        """Prepare; while ``reading`` is not set, it reads nothing if that is its habit."""
        self.caller = Caller(name, targets, key, recorder, f"{seed}/{name}")
        self.opened = threading.Event()
        """Set once the first stream has said something."""
        self.settled = threading.Event()
        """To be set once nothing happens any more: it then stops when it has seen everything."""
        self.done = threading.Event()
        self._habit = habit
        self._reading = reading if habit.stops else None
        self._session = 0
        self._number = 0
        self._tokens: list[str] = []
        self._from_start = not habit.snapshot

    @property
    def steady(self) -> bool:
        """Whether it reads at once, and stays."""
        return not (self._habit.restless or self._habit.pause or self._habit.stops)

    def look(self) -> None:
        """Open a stream, and leave it with the token of its first frame."""
        self._stream("", -1, _HOLDING_ON, 1)

    def work(self) -> None:
        """Watch until everything was seen, or told to stop."""
        while not (self.caller.stop.is_set() or self.done.is_set()):
            code = self._connect()
            if code == "OUT_OF_RANGE":  # what follows the token is gone: from the beginning
                self._session, self._tokens, self._from_start = self._session + 1, [], False
            elif code not in ("CANCELLED", "DEADLINE_EXCEEDED"):
                self.caller.turn += 1
                time.sleep(self.caller.chance.uniform(0.01, 0.1))
            self.settled.wait(self.caller.chance.uniform(0, self._habit.away))
            if self._tokens and self._habit.restless and self.caller.chance.random() < 0.1:
                self._look_aside()

    def _request(self, token: str) -> pb.WatchJobsRequest:
        wanted = self._habit.filter
        return pb.WatchJobsRequest(
            filter=pb.JobFilter(
                owner_id=wanted.owner_id,
                document_id=wanted.document_id,
                kinds=wanted.kinds,
                document_types=wanted.document_types,
                states=[pb.JobState.Value(f"JOB_STATE_{state}") for state in wanted.states],
                worker_ids=wanted.worker_ids,
            ),
            resume_token=token,
            include_snapshot=self._habit.snapshot or self._session > 0,
            conflate=self._habit.conflate,
        )

    def _connect(self) -> str:
        """Open a stream where the last one ended; give how it ended itself."""
        chance = self.caller.chance
        restless = self._habit.restless
        limit = chance.uniform(0.3, 6.0) if restless else _HOLDING_ON
        most = chance.randint(1, 400) if restless else 10**9
        token = self._tokens[-1] if self._tokens else ""
        after = len(self._tokens) or -1
        return self._stream(token, after, limit, most)

    def _look_aside(self) -> None:
        """Look again at what followed an older token."""
        chance = self.caller.chance
        near = max(len(self._tokens) - 200, 0) if chance.random() < 0.7 else 0
        place = chance.randrange(near, len(self._tokens))
        self._stream(self._tokens[place], place + 1, 1.0, 50, aside=True)

    def _stream(self, token: str, after: int, limit: float, most: int, *, aside: bool = False) -> str:
        number, begun = self._number, time.monotonic()
        self._number += 1
        code, reason = "CANCELLED", ""
        call: Any = None
        try:
            stub = self.caller.stub("WatchJobs")
            call = stub(self._request(token), timeout=limit, metadata=self.caller.metadata)
            for frame in _at_most(call, most):
                self._take(frame, number, aside=aside)
                if self._is_over(frame, aside=aside):
                    break
            call.cancel()
        except grpc.RpcError as error:
            code, reason = read_error(error)
        except ValueError:
            self.caller.stop.set()  # the connection was closed: the run is over
        self.caller.recorder.add(
            Connection(
                self.caller.name,
                self._session,
                number,
                self._habit.filter,
                after,
                begun,
                time.monotonic(),
                code,
                reason,
                snapshot=self._habit.snapshot or self._session > 0,
                conflate=self._habit.conflate,
                aside=aside,
                from_start=self._from_start,
            )
        )
        return code

    def _take(self, frame: Any, number: int, *, aside: bool) -> None:
        kind = frame.WhichOneof("frame")
        self.caller.recorder.add(
            Frame(
                self.caller.name,
                self._session,
                number,
                time.time(),
                kind,
                event=self.caller.recorder.event(frame.event) if kind == "event" else None,
                job=job_of(frame.snapshot) if kind == "snapshot" else None,
                leaves=frame.leaves_filter,
                lag=frame.heartbeat.lag,
            )
        )
        if not aside:
            self._tokens.append(frame.resume_token)
        self.opened.set()
        if self._habit.pause and not self.settled.is_set():
            time.sleep(self._habit.pause)
        while self._reading is not None and not (self._reading.wait(0.1) or self.caller.stop.is_set()):
            pass

    def _is_over(self, frame: Any, *, aside: bool) -> bool:
        seen_all = frame.HasField("heartbeat") and frame.heartbeat.lag == 0
        if self.settled.is_set() and seen_all and not aside:
            self.done.set()
        return self.done.is_set() or self.caller.stop.is_set()


def _at_most(frames: Iterator[Any], most: int) -> Iterator[Any]:
    for _ in range(most):
        try:
            yield next(frames)
        except StopIteration:
            return


class JobWatcher:
    """A client of WatchJob: it follows one job after the other to its end."""

    def __init__(
        self,
        name: str,
        targets: Sequence[str],
        recorder: Recorder,
        seed: int,
        made: deque[tuple[str, str, str]],
    ) -> None:
        """Prepare; ``made`` holds id, owner and key of what there is to watch."""
        self.caller = Caller(name, targets, "", recorder, f"{seed}/{name}")
        self._made = made
        self._count = 0

    def work(self) -> None:
        """Watch until told to stop."""
        while not self.caller.stop.is_set():
            if not self._made:
                time.sleep(0.05)
                continue
            job_id, owner_id, key = self.caller.chance.choice(tuple(self._made))
            self._count += 1
            self._follow(Filter(owner_id=owner_id, job_id=job_id), key)

    def _follow(self, wanted: Filter, key: str) -> None:
        name = f"{self.caller.name}/{self._count}"
        seen, frames, number = 0, 0, 0
        code = ""
        while code not in ("OK", "NOT_FOUND", "OUT_OF_RANGE") and not self.caller.stop.is_set():
            begun, limit = time.monotonic(), self.caller.chance.uniform(0.3, 4)
            request = pb.WatchJobRequest(job_id=wanted.job_id, after_sequence=seen)
            got: list[Frame] = []
            code, reason = "OK", ""
            try:
                stub = self.caller.stub("WatchJob")
                for frame in stub(request, timeout=limit, metadata=(("x-api-key", key),)):
                    kind = frame.WhichOneof("frame")
                    event = self.caller.recorder.event(frame.event) if kind == "event" else None
                    seen = event.number if event else max(seen, frame.heartbeat.sequence)
                    got.append(Frame(name, 0, number, time.time(), kind, event=event))
            except grpc.RpcError as error:
                code, reason = read_error(error)
                self.caller.turn += 1
            except ValueError:
                return
            for made in got:
                self.caller.recorder.add(made)
            times = (begun, time.monotonic())
            self.caller.recorder.add(
                Connection(name, 0, number, wanted, frames or -1, *times, code, reason, from_start=True)
            )
            frames += len(got)
            number += 1
