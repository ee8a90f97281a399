"""The heartbeats of a worker: one thread renews all its leases, each at a third of its duration.

What does not live here: what a lease that is over means for the work on it.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import grpc

from morag_client.holds import Hold, LeaseLost
from morag_client.own_jobs import OwnJobs
from morag_client.refusals import refusal_of
from morag_client.reports import heed
from moragmeta.v1 import workers_pb2
from moragmeta.v1.workers_pb2_grpc import WorkerServiceStub

_LOOK_SECONDS: Final = 0.2


class Heart:
    """Beats while it is running."""

    def __init__(self, channel: grpc.Channel, own_jobs: OwnJobs) -> None:
        self._stub = WorkerServiceStub(channel)
        self._own_jobs = own_jobs
        self._stopped = threading.Event()
        self._under_way: dict[Hold, Any] = {}
        self._not_before: dict[Hold, float] = {}

    def start(self) -> None:
        """Begin to beat, in a thread."""
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            holds = self._own_jobs.all()
            for hold in set(self._under_way) - set(holds):
                del self._under_way[hold]
            for hold in set(self._not_before) - set(holds):
                del self._not_before[hold]
            for hold in holds:
                self._look_after(hold)

    def _look_after(self, hold: Hold) -> None:
        call = self._under_way.get(hold)
        if call is not None and call.done():
            del self._under_way[hold]
            self._answered(hold, call)
        due = max(hold.beat_time, self._not_before.get(hold, 0.0))
        # Asking why also notices a lease that nobody could renew in time.
        if hold.why is None and hold not in self._under_way and time.monotonic() >= due:
            request = workers_pb2.HeartbeatJobRequest(job_id=hold.job.id, lease_token=hold.token)
            # A call of its own, so that no lease waits for the answer to another's.
            self._under_way[hold] = self._stub.HeartbeatJob.future(
                request, timeout=max(0.5, hold.seconds / 3)
            )

    def _answered(self, hold: Hold, call: Any) -> None:
        try:
            heed(hold, call.result())
        except grpc.RpcError as error:
            refusal = refusal_of(error)
            if refusal.code is grpc.StatusCode.NOT_FOUND:
                hold.stop(LeaseLost, str(refusal))
            # Anything else may pass before the lease does.
            pause = max(min(2.0, hold.seconds / 10), refusal.retry_after)
            self._not_before[hold] = time.monotonic() + pause
