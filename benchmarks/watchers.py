"""Thousands of WatchJob streams: what an idle one occupies, and how soon a change reaches all of them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from benchmarks.data import Filled, add_jobs
from benchmarks.processes import Served, cpu_seconds, cpu_since, resident_bytes
from benchmarks.wire import Connection, call_headers, read_all
from morag_meta.auth.authenticator import KEY_HEADER
from morag_meta.db.database import Database
from moragmeta.v1 import jobs_pb2

_STREAMS_EACH = 100  # on one connection, as some proxies in front of many browsers would have it
_SETTLE_SECONDS = 1.5
_WATCH = "/moragmeta.v1.JobService/WatchJob"
_UPDATE = "/moragmeta.v1.JobService/UpdateJobProgress"


@dataclass(slots=True)
class Watched:
    """What some watchers of one process gave; times are seconds, memory is bytes."""

    watchers: int
    refused: int = 0
    opened_in: float = 0.0
    memory_each: float = 0.0
    idle_cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """From sending a change to its arrival at one watcher, for each change and watcher."""
    slowest: list[float] = field(default_factory=list)
    """Of each change, when the last watcher had it."""


def start_jobs(filled: Filled, count: int) -> list[str]:
    """Make jobs that nobody has reported of; give their ids."""
    database = Database.open(filled.url)
    try:
        with database.unit_of_work() as uow:
            ids = add_jobs(uow, filled.owner_id, count)
            uow.commit()
    finally:
        database.close()
    return ids


def watch(filled: Filled, served: Served, jobs: list[str], *, changes: int) -> Watched:
    """Open one stream for each entry of ``jobs``, wait, and then change the first job so many times."""
    with contextlib.closing(_Crowd(filled, served)) as crowd:
        crowd.open(jobs[:_STREAMS_EACH])  # what a process allocates once is not the watchers'
        crowd.end_all()
        before = resident_bytes(served.pid)
        result = Watched(len(jobs))
        started = time.perf_counter()
        crowd.open(jobs)
        result.opened_in = time.perf_counter() - started
        idle_from = cpu_seconds([served.pid])
        crowd.listen(_SETTLE_SECONDS)
        result.idle_cpu = cpu_since(idle_from) / _SETTLE_SECONDS
        result.refused = crowd.refused
        result.memory_each = (resident_bytes(served.pid) - before) / len(jobs)
        for _ in range(changes):
            latencies = crowd.change(jobs[0])
            result.latencies += latencies
            result.slowest.append(max(latencies))
            crowd.listen(0.1)
        return result


class _Crowd:
    """The streams of one client process, and the caller whose reports they hear of."""

    def __init__(self, filled: Filled, served: Served) -> None:
        self._port = served.port
        key = (KEY_HEADER, filled.key)
        self._watch = call_headers(_WATCH, key)
        self._update = call_headers(_UPDATE, key)
        self._caller = Connection(served.port, lambda *_: None, lambda *_: None)
        self._connections: list[Connection] = []
        self._arrivals: list[float] = []
        self._first_frames = 0
        self._open = 0
        self._report = 0
        self.refused = 0

    def open(self, jobs: list[str]) -> None:
        """Open the streams and wait until each has sent what the job's last event was."""
        self._arrivals.clear()
        for start in range(0, len(jobs), _STREAMS_EACH):
            connection = Connection(self._port, self._arrive, self._end)
            self._connections.append(connection)
            for job in jobs[start : start + _STREAMS_EACH]:
                # A started job has two events; the second comes, and shows that the stream is open.
                request = jobs_pb2.WatchJobRequest(job_id=job, after_sequence=1)
                connection.call(self._watch, request.SerializeToString())
                self._open += 1
        read_all(self._connections, lambda: len(self._arrivals) >= self._open - self.refused)

    def change(self, job: str) -> list[float]:
        """Report progress; give how long it took to reach each watcher."""
        self._arrivals.clear()
        self._report += 1
        request = jobs_pb2.UpdateJobProgressRequest(id=job, attempt=1, report_number=self._report)
        started = time.perf_counter()
        self._caller.call(self._update, request.SerializeToString())
        watching = [*self._connections, self._caller]
        read_all(watching, lambda: len(self._arrivals) >= self._open - self.refused)
        return [arrival - started for arrival in self._arrivals]

    def listen(self, seconds: float) -> None:
        """Let time pass, answering what the connections need."""
        end = time.perf_counter() + seconds
        read_all([*self._connections, self._caller], lambda: time.perf_counter() >= end)

    def end_all(self) -> None:
        """Disconnect the watchers and let the server notice."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._open = 0
        self.listen(_SETTLE_SECONDS)

    def close(self) -> None:
        """Disconnect everybody."""
        for connection in (*self._connections, self._caller):
            connection.close()

    def _arrive(self, number: int, message: bytes) -> None:
        del number
        if message.startswith(b"\n"):  # an event; heartbeats have another tag
            self._arrivals.append(time.perf_counter())

    def _end(self, number: int, ok: bool) -> None:  # noqa: FBT001 - the wire's own signature
        del number, ok
        self.refused += 1
