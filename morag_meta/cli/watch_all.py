"""Following every job that is open, and each new one, over one stream that resumes by itself.

How jobs are shown stands in ``watch.py``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final

import grpc

from morag_meta.cli.failures import CommandError
from morag_meta.cli.interruptions import Pauses, is_interruption, told_delay
from morag_meta.cli.watch import FINAL, View
from morag_meta.exits import ExitCode
from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub

_OPEN: Final = (pb.JOB_STATE_PENDING, pb.JOB_STATE_WAITING_FOR_REMOTE_WORKER, pb.JOB_STATE_PROCESSING)
_MOST_ENDED: Final = 10  # that are still shown


class WatchAll:
    """Follows the open jobs of an owner over one channel."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Any, view: View, patience: float) -> None:
        """Try again for ``patience`` seconds when nothing arrives."""
        self._stub: Any = JobServiceStub(channel)
        self._metadata = metadata
        self._view = view
        self._patience = patience
        self._open: set[str] = set()
        self._shown: set[str] = set()
        self._ended: deque[str] = deque()
        self._token = ""
        self._all_well = True

    async def follow(self, owner_id: str, *, until_idle: bool) -> bool:
        """Show what happens, with ``until_idle`` until no job is open; return whether all FINISHED.

        Raises:
            grpc.aio.AioRpcError: the server refuses.
            CommandError: the server was away for longer than the patience.
        """
        chosen = pb.JobFilter(owner_id=owner_id, states=_OPEN)
        pauses, alive = Pauses(), time.monotonic()
        while True:
            least = 0.0
            try:
                request = pb.WatchJobsRequest(filter=chosen, resume_token=self._token, include_snapshot=True)
                call = self._stub.WatchJobs(request, metadata=self._metadata)
                async for frame in call:
                    alive = time.monotonic()
                    pauses.reset()
                    self._take(frame)
                    if until_idle and self._is_idle(frame):
                        call.cancel()
                        return self._all_well
                cause = "the stream ended"
                self._tell_away(cause)
            except grpc.aio.AioRpcError as error:
                cause, least = self._judge(error), told_delay(error)
            if time.monotonic() - alive > self._patience:
                raise CommandError(f"{cause}; gave up", ExitCode.UNREACHABLE)
            await asyncio.sleep(pauses.next(least))

    def _take(self, frame: pb.JobFrame) -> None:
        self._token = frame.resume_token or self._token
        kind = frame.WhichOneof("frame")
        if kind == "snapshot":
            self._begin(frame.snapshot)
        elif kind == "event":
            event = frame.event
            self._begin(pb.Job(id=event.job_id, kind=event.kind, document_name=event.document_id))
            self._view.event(event)
            if event.state in FINAL:
                self._end(event)

    def _begin(self, job: pb.Job) -> None:
        self._open.add(job.id)
        if job.id not in self._shown:
            self._shown.add(job.id)
            self._view.begin(job)

    def _end(self, event: pb.JobEvent) -> None:
        self._all_well &= event.state == pb.JOB_STATE_FINISHED
        self._open.discard(event.job_id)
        self._ended.append(event.job_id)
        if len(self._ended) > _MOST_ENDED:
            oldest = self._ended.popleft()
            self._shown.discard(oldest)
            self._view.forget(oldest)

    def _is_idle(self, frame: pb.JobFrame) -> bool:
        """Whether no job is open, of which a frame before the end of the snapshot says nothing."""
        return not self._open and frame.WhichOneof("frame") != "snapshot"

    def _judge(self, error: grpc.aio.AioRpcError) -> str:
        """Say why a stream ended that is to be opened again; with a new snapshot where events are gone."""
        is_gone = error.code().name == "OUT_OF_RANGE"
        if not is_gone and not is_interruption(error):
            raise error
        cause = str(error.details() or error.code().name)
        self._tell_away(cause)
        if is_gone:
            self._token = ""
            self._shown -= self._open
            for job_id in self._open:
                self._view.forget(job_id)
            self._open.clear()
        return cause

    def _tell_away(self, cause: str) -> None:
        for job_id in self._open:
            self._view.away(job_id, cause)
