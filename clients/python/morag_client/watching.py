"""Following jobs over streams that resume by themselves, so that nothing is missed and nothing seen twice.

Both iterators open their stream again, with a growing pause, where the table in docs/streams.md says
"watch again": after UNAVAILABLE, and after any other break of the connection. What that table calls an
end for the caller to decide about is raised as the ``grpc.RpcError`` that it is. A server that went
silent is noticed by the channel's keepalive (:func:`morag_client.connect`).

What does not live here: what to show of an event.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc

from morag_client.refusals import Refusal, refusal_of
from morag_client.repeating import pauses
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub

_Item = TypeVar("_Item")


class Watch(ABC, Iterator[_Item], Generic[_Item]):
    """An iterator over a stream; it ends when its stream has ended for good, or when it is closed.

    One thread iterates; any may call :meth:`close`. As a context manager it is closed at the end.
    """

    def __init__(self, channel: grpc.Channel, patience: float | None) -> None:
        self._stub = JobServiceStub(channel)
        self._patience = patience
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._call: Any = None
        self._pauses = pauses()
        self._alive = time.monotonic()

    def __next__(self) -> _Item:
        while True:
            try:
                frame = next(self._stream())
            except StopIteration:
                self._call = None
                if self._closed.is_set() or self._complete():
                    raise
                self._rest(None, 0.0)
            except grpc.RpcError as error:
                self._call = None
                self._broken(error)
            else:
                self._alive, self._pauses = time.monotonic(), pauses()
                if (item := self._take(frame)) is not None:
                    return item

    def close(self) -> None:
        """End the stream, and with it the iteration, also while another thread waits in it."""
        self._closed.set()
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _open(self) -> Any:
        """Open the stream where the last one ended."""

    @abstractmethod
    def _take(self, frame: pb.JobFrame) -> _Item | None:
        """Remember where the frame stands, and return what the caller gets of it."""

    def _complete(self) -> bool:
        """Return whether a stream that ended with OK told all that there is to tell."""
        return False

    def _mended(self, refusal: Refusal) -> bool:
        """Return whether the stream can be opened now although the service refused it."""
        return False

    def _stream(self) -> Any:
        with self._lock:
            if self._closed.is_set():
                raise StopIteration
            if self._call is None:
                self._call = self._open()
            return self._call

    def _broken(self, error: grpc.RpcError) -> None:
        if self._closed.is_set():
            return
        refusal = refusal_of(error)
        if not refusal.may_repeat and not self._mended(refusal):
            raise error
        self._rest(error, refusal.retry_after)

    def _rest(self, error: grpc.RpcError | None, least: float) -> None:
        patient = self._patience is None or time.monotonic() - self._alive <= self._patience
        if error is not None and not patient:
            raise error
        self._closed.wait(max(next(self._pauses), least))


class JobsWatch(Watch[pb.JobFrame]):
    """The frames of :func:`watch_jobs`."""

    def __init__(
        self, channel: grpc.Channel, request: pb.WatchJobsRequest, *, restart: bool, patience: float | None
    ) -> None:
        super().__init__(channel, patience)
        self._request = request
        self._restart = restart

    @property
    def resume_token(self) -> str:
        """The token of the last frame that was given out: where another watch may go on."""
        return self._request.resume_token

    def _open(self) -> Any:
        return self._stub.WatchJobs(self._request)

    def _take(self, frame: pb.JobFrame) -> pb.JobFrame:
        self._request.resume_token = frame.resume_token
        return frame

    def _mended(self, refusal: Refusal) -> bool:
        if refusal.code is not grpc.StatusCode.OUT_OF_RANGE or not self._restart:
            return False
        self._request.resume_token = ""
        self._request.include_snapshot = True
        return True


class JobWatch(Watch[pb.JobEvent]):
    """The events of :func:`watch_job`."""

    def __init__(self, channel: grpc.Channel, job_id: str, after: int, patience: float | None) -> None:
        super().__init__(channel, patience)
        self._job_id = job_id
        self.sequence = after
        """The number of the last event that was given out, or skipped: where another watch may go on."""

    def _open(self) -> Any:
        return self._stub.WatchJob(pb.WatchJobRequest(job_id=self._job_id, after_sequence=self.sequence))

    def _take(self, frame: pb.JobFrame) -> pb.JobEvent | None:
        if frame.WhichOneof("frame") != "event":
            self.sequence = max(self.sequence, frame.heartbeat.sequence)
            return None
        self.sequence = frame.event.sequence
        return frame.event

    def _complete(self) -> bool:
        return True


def watch_jobs(
    channel: grpc.Channel,
    job_filter: pb.JobFilter | None = None,
    *,
    resume_token: str = "",
    include_snapshot: bool = False,
    conflate: bool = False,
    restart: bool = False,
    patience: float | None = None,
) -> JobsWatch:
    """Give every frame about the jobs that match a filter, for ever.

    The frames are those of ``JobService.WatchJobs``: with ``include_snapshot`` first the jobs that match
    now, then ``sync``, then each change, and heartbeats between. Before ``sync`` an interruption begins
    the snapshot anew. ``frame.resume_token``, saved when the frame has been dealt with, lets a later
    watch with the same filter go on behind it. ``conflate`` allows the service to leave out all but the
    last of several changes where this reader is behind.

    With ``restart``, events that are no longer kept (OUT_OF_RANGE) lead to a new snapshot instead of an
    error. ``patience`` is for how many seconds without a frame to go on trying; None is for ever.

    Raises:
        grpc.RpcError: an end that trying again does not mend, or the patience has run out.
    """
    request = pb.WatchJobsRequest(
        filter=job_filter, resume_token=resume_token, include_snapshot=include_snapshot, conflate=conflate
    )
    return JobsWatch(channel, request, restart=restart, patience=patience)


def watch_job(
    channel: grpc.Channel, job_id: str, *, after: int = 0, patience: float | None = None
) -> JobWatch:
    """Give each event of one job after the number ``after``, until the job has ended.

    Raises:
        grpc.RpcError: NOT_FOUND where the job is none of the caller's or was deleted, OUT_OF_RANGE where
            ``after`` is not usable, or another end that trying again does not mend.
    """
    return JobWatch(channel, job_id, after, patience)
