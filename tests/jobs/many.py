"""A stream over many jobs that is read in a thread, and what its frames must be whatever happens."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import grpc

from moragmeta.v1 import jobs_pb2 as pb


class Many:
    """One WatchJobs stream; a test can act while it is open."""

    def __init__(self, jobs: Any, **request: Any) -> None:
        """Open the stream with a stub of the service."""
        self.frames: list[pb.JobFrame] = []
        self.arrived: dict[tuple[str, int], float] = {}
        """When each event came, by job and number, in monotonic seconds."""
        self.error: Any = None
        self._changed = threading.Condition()
        self._call = jobs.WatchJobs(pb.WatchJobsRequest(**request))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self._call:
                with self._changed:
                    self.frames.append(frame)
                    if frame.HasField("event"):
                        self.arrived[frame.event.job_id, frame.event.sequence] = time.monotonic()
                    self._changed.notify_all()
        except grpc.RpcError as error:
            with self._changed:
                self.error = error
                self._changed.notify_all()

    def of_kind(self, kind: str) -> list[pb.JobFrame]:
        """The frames so far of one kind: event, heartbeat, snapshot or sync."""
        return [frame for frame in list(self.frames) if frame.WhichOneof("frame") == kind]

    @property
    def events(self) -> list[pb.JobEvent]:
        """The events so far."""
        return [frame.event for frame in self.of_kind("event")]

    @property
    def told(self) -> list[tuple[str, int]]:
        """The events so far, by job and number."""
        return [(event.job_id, event.sequence) for event in self.events]

    @property
    def token(self) -> str:
        """The newest token."""
        return self.frames[-1].resume_token if self.frames else ""

    def wait(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until something is true of the frames."""
        with self._changed:
            met = self._changed.wait_for(lambda: condition() or self.error is not None, timeout)
        assert met, self.frames[-5:]
        assert condition(), (self.error, self.frames[-5:])

    def wait_for(self, job_id: str, number: int, timeout: float = 10.0) -> None:
        """Wait until an event has arrived."""
        self.wait(lambda: (job_id, number) in self.told, timeout)

    def synced(self, timeout: float = 10.0) -> Many:
        """Wait until the snapshot is complete."""
        self.wait(lambda: bool(self.of_kind("sync")), timeout)
        return self

    def end(self, timeout: float = 10.0) -> Any:
        """Wait for the end, and give its error or None."""
        self._thread.join(timeout)
        assert not self._thread.is_alive()
        return self.error

    def leave(self) -> None:
        """Cancel, and wait until nothing comes any more."""
        self._call.cancel()
        self._thread.join(10)


def numbers_by_job(frames: list[pb.JobFrame]) -> dict[str, list[int]]:
    """Give the numbers of the events of each job, in the order in which they came."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for frame in frames:
        if frame.HasField("event"):
            numbers[frame.event.job_id].append(frame.event.sequence)
    return dict(numbers)


def expect_whole(frames: list[pb.JobFrame], newest: dict[str, int]) -> None:
    """Check a history that no filter cut: behind what its snapshot shows each event comes once, in order."""
    shown = {
        frame.snapshot.id: frame.snapshot.last_sequence for frame in frames if frame.HasField("snapshot")
    }
    seen = numbers_by_job(frames)
    for job_id, last in newest.items():
        assert seen.get(job_id, []) == list(range(shown.get(job_id, 0) + 1, last + 1)), job_id
