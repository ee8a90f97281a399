"""gRPC's server ends though nobody asked for it: the process does not stay behind, ready and of no use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from morag_meta.exits import ExitCode
from tests.backends.daemon import free_port
from tests.server.processes import environment

_LOSING = """
import asyncio, sys
from morag_meta.server.app import App
from morag_meta.cli import main

start = App.start

async def starting(self):
    port = await start(self)
    asyncio.get_running_loop().call_later(0.5, lambda: asyncio.ensure_future(self._server.stop(0)))
    return port

App.start = starting
"""
_STUCK = """
App.stop = lambda self, grace: asyncio.sleep(3600)
"""
_MAIN = """
sys.exit(main())
"""


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("script", "last_words"),
    [
        (_LOSING, "gRPC takes no more calls, by a fault of its own"),
        (_LOSING + _STUCK, "ended with writes left undone: the database does not answer"),
    ],
    ids=["the database answers", "the database does not answer"],
)
def test_a_process_ends_with_its_server(
    tmp_path: Path, database_url: str, script: str, last_words: str
) -> None:
    """It fails, so that whoever looks after it starts another, and its last line says why."""
    address = f"127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, "-c", script + _MAIN, "serve", "--address", address, "--database-url", database_url],
        cwd=tmp_path,
        env=environment() | {"MORAG_SHUTDOWN_GRACE": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, last["event"]) == (ExitCode.FAILURE, last_words)
