"""Thousands of open streams in one client process, and the caller whose reports they hear of.

What they watch, and what is measured of them, is the matter of ``watchers.py`` and ``writers.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.wire import Connection, call_headers, read_all
from morag_meta.auth.authenticator import KEY_HEADER
from moragmeta.v1 import jobs_pb2

_STREAMS_EACH = 100  # on one connection, as some proxies in front of many browsers would have it
_SETTLE_SECONDS = 1.5
_SERVICE: Final = "/moragmeta.v1.JobService"
_COUNTED: Final = (b"\n", b'"')  # the first bytes of an event and of a SYNC; heartbeats have another


@dataclass(frozen=True, slots=True)
class Watch:
    """One stream to open: its header block, which also says whose it is, and its request."""

    headers: bytes
    message: bytes


def watch_each(key: str, jobs: Iterable[str]) -> list[Watch]:
    """Watch one job with each stream, by WatchJob."""
    headers = call_headers(f"{_SERVICE}/WatchJob", (KEY_HEADER, key))
    # A started job has two events; the second comes, and shows that the stream is open.
    requests = (jobs_pb2.WatchJobRequest(job_id=job, after_sequence=1) for job in jobs)
    return [Watch(headers, request.SerializeToString()) for request in requests]


def watch_all(key: str, kinds: Sequence[str] = ()) -> Watch:
    """Watch all jobs of the key's owner, or those of some kinds, by WatchJobs; SYNC shows that it is open."""
    headers = call_headers(f"{_SERVICE}/WatchJobs", (KEY_HEADER, key))
    request = jobs_pb2.WatchJobsRequest(filter=jobs_pb2.JobFilter(kinds=kinds))
    return Watch(headers, request.SerializeToString())


class Crowd:
    """The streams of one client process, and the caller whose reports they hear of."""

    def __init__(self, port: int, key: str) -> None:
        """Watch at a port of this machine, and report with a key."""
        self._port = port
        self._update = call_headers(f"{_SERVICE}/UpdateJobProgress", (KEY_HEADER, key))
        self._caller = Connection(port, lambda *_: None, lambda *_: None)
        self.connections: list[Connection] = []
        self._arrivals: list[float] = []
        self._open = 0
        self.refused = 0

    def open(self, watches: Sequence[Watch]) -> None:
        """Open the streams, all at once, and wait until each has sent the first thing that it has to say."""
        self._arrivals.clear()
        for start in range(0, len(watches), _STREAMS_EACH):
            connection = Connection(self._port, self._arrive, self._end)
            self.connections.append(connection)
            for watch in watches[start : start + _STREAMS_EACH]:
                connection.call(watch.headers, watch.message)
                self._open += 1
        read_all(self.connections, lambda: len(self._arrivals) >= self._open - self.refused)

    def change(self, job: str) -> tuple[float, list[float]]:
        """Report progress; give when, and how long it took to reach each watcher."""
        self._arrivals.clear()
        number = time.time_ns() // 1000  # which grows, whoever else has reported of the job
        request = jobs_pb2.UpdateJobProgressRequest(id=job, attempt=1, report_number=number)
        started = time.perf_counter()
        self._caller.call(self._update, request.SerializeToString())
        watching = [*self.connections, self._caller]
        read_all(watching, lambda: len(self._arrivals) >= self._open - self.refused)
        return started, [arrival - started for arrival in self._arrivals]

    def listen(self, seconds: float = _SETTLE_SECONDS) -> None:
        """Let time pass, answering what the connections need."""
        end = time.perf_counter() + seconds
        read_all([*self.connections, self._caller], lambda: time.perf_counter() >= end)

    def end_all(self) -> None:
        """Disconnect the watchers and let the server notice."""
        for connection in self.connections:
            connection.close()
        self.connections.clear()
        self._open = 0
        self.listen()

    def close(self) -> None:
        """Disconnect everybody."""
        for connection in (*self.connections, self._caller):
            connection.close()

    def _arrive(self, number: int, message: bytes) -> None:
        del number
        if message.startswith(_COUNTED):
            self._arrivals.append(time.perf_counter())

    def _end(self, number: int, ok: bool) -> None:  # noqa: FBT001 - the wire's own signature
        del number, ok
        self.refused += 1
