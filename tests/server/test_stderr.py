"""Calls are answered also where not one line can be logged."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from moragmeta.v1 import servers_pb2 as pb
from tests.processes import ServerProcess, prepare
from tests.service import Channel


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("stderr", ["full disk", "broken pipe"])
def test_calls_are_answered_where_nothing_can_be_logged(
    database_url: str, tmp_path: Path, stderr: str
) -> None:
    """With stderr on a full disk or a pipe that nobody reads, calls go well and the exit is in order."""
    key = prepare(database_url)
    log = Path("/dev/full")
    if stderr == "broken pipe":
        log = tmp_path / "pipe"
        os.mkfifo(log)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    server = ServerProcess(database_url, log, log_level="DEBUG")
    try:
        server.start()
        if stderr == "broken pipe":
            os.close(reader)
        channel = Channel(server.target, (("x-api-key", key),))
        for _ in range(3):
            name = uuid.uuid4().hex
            new = pb.Server(name=name, kind=pb.SERVER_KIND_QDRANT, host="localhost", port=6333)
            assert channel.servers.CreateServer(pb.CreateServerRequest(server=new)).name == name
        channel.close()
        assert server.terminate() == 0
    finally:
        server.close()
