"""Streams that are cancelled by the thousand leave the server's memory and connections as they were."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from moragmeta.v1 import jobs_pb2 as pb
from moragmeta.v1 import jobs_pb2_grpc
from tests.processes import ServerProcess, prepare

_log = logging.getLogger(__name__)
STREAMS = int(os.environ.get("MORAG_TEST_STREAMS", "700"))
_MEASURED = 10_000
"""Streams after which memory is measured, where there are as many."""
_WARM = 300
_BYTES_PER_STREAM = 3000
_SLACK = 6_000_000
_POOL = 3 * 8
"""Files of the connections by which the pool may have grown: as many as it has, of SQLite three each."""


def _memory(server: ServerProcess) -> int:
    pages = int(Path("/proc", str(server.process.pid), "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _sockets(server: ServerProcess) -> int:
    """Count the server's open files, its connections among them."""
    return len(list(Path("/proc", str(server.process.pid), "fd").iterdir()))


def _wait(true: Callable[[], bool]) -> None:
    """Give a busy machine some time to come to what is asserted then."""
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.1)


def _cancel(stub: Any, metadata: Any, count: int) -> None:
    """Open streams and cancel them: before anything came, after the first frame, or some way on."""
    chance = random.Random(5)  # noqa: S311 - when to cancel
    opened: list[Any] = []
    for _ in range(count):
        call = stub.WatchJobs(pb.WatchJobsRequest(include_snapshot=chance.random() < 0.5), metadata=metadata)
        opened.append(call)
        if chance.random() < 0.3:
            next(call)
        if len(opened) > 30:
            opened.pop(chance.randrange(len(opened))).cancel()
    for call in opened:
        call.cancel()


def test_cancelled_streams_leave_memory_and_connections_flat(database_url: str, tmp_path: Path) -> None:
    """Once warm, a server needs no more memory and no more connections after many streams were cancelled."""
    key = prepare(database_url)
    server = ServerProcess(database_url, tmp_path / "log")
    server.start()
    metadata = (("x-api-key", key),)
    try:
        with grpc.insecure_channel(server.target) as channel:
            stub: Any = jobs_pb2_grpc.JobServiceStub(channel)
            for _ in range(20):
                stub.CreateJob(pb.CreateJobRequest(job=pb.Job(kind="X")), metadata=metadata)
            _cancel(stub, metadata, _WARM)
            time.sleep(1)
            memory, sockets = _memory(server), _sockets(server)
            for done in range(_MEASURED, STREAMS + 1, _MEASURED) or [STREAMS]:
                _cancel(stub, metadata, min(_MEASURED, STREAMS))
                time.sleep(1)
                _wait(lambda: _sockets(server) <= sockets + _POOL)
                grown = _memory(server) - memory
                told = (done, grown / 1e6, memory / 1e6, _sockets(server))
                _log.info("%d streams: %+.1f MB on %.1f MB, %d descriptors", *told)
                assert grown < _SLACK + done * _BYTES_PER_STREAM / 10
                assert _sockets(server) <= sockets + _POOL
            first = next(stub.WatchJobs(pb.WatchJobsRequest(), metadata=metadata))
            assert first.HasField("sync")
    finally:
        server.close()
