"""Reading a stream of job frames one at a time, for as long as the call's deadline allows."""

from __future__ import annotations

from typing import Any, Self

from morag_meta.conformance.expect import Unmet
from moragmeta.v1 import jobs_pb2 as pb


class Stream:
    """The frames of one WatchJob or WatchJobs call; leaving the block cancels it."""

    def __init__(self, call: Any) -> None:
        """Take the call, which has begun."""
        self._call = call

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the call, if it has not ended."""
        self._call.cancel()

    def frame(self) -> pb.JobFrame:
        """Give the next frame, heartbeats too.

        Raises:
            grpc.RpcError: the stream ended with a status, DEADLINE_EXCEEDED if nothing came.
            Unmet: the stream ended with OK.
        """
        for frame in self._call:
            return frame  # type: ignore[no-any-return]
        raise Unmet("another frame of the stream", "the stream ended with OK")

    def frames(self, kind: str) -> list[pb.JobFrame]:
        """Give the frames up to and with the first one of a kind, without the heartbeats before it."""
        found: list[pb.JobFrame] = []
        while True:
            frame = self.frame()
            if frame.WhichOneof("frame") == kind:
                return [*found, frame]
            if frame.WhichOneof("frame") != "heartbeat":
                found.append(frame)

    def changes(self, count: int) -> list[pb.JobFrame]:
        """Give the next ``count`` frames with an event."""
        return [self.frames("event")[-1] for _ in range(count)]

    def events(self, count: int) -> list[pb.JobEvent]:
        """Give the next ``count`` events."""
        return [frame.event for frame in self.changes(count)]

    def rest(self) -> list[pb.JobEvent]:
        """Give the events up to the end, which must be OK.

        Raises:
            grpc.RpcError: the stream ended otherwise.
        """
        return [frame.event for frame in self._call if frame.WhichOneof("frame") == "event"]

    def ended(self) -> None:
        """Read on until the stream ends with a status, which is raised.

        Raises:
            grpc.RpcError: how it ended.
        """
        for _ in self._call:
            pass
