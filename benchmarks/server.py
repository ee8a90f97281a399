"""The measured process: the real server, with the rivals beside the service's own methods.

Run as ``python -m benchmarks.server``; settings come from the environment, as the service's do. It prints
its port when it serves, and ends with SIGTERM. With ``--shared`` other processes may listen on its port;
with ``--asleep`` its sequencer gives no event a position; with ``--open=<user's id>`` it takes every caller
for that user.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import grpc
import uvloop

from benchmarks import contract
from benchmarks.open import open_to_all
from benchmarks.orm import OrmDriver
from benchmarks.raw import RawDriver
from benchmarks.rivals import BareMethods, DispatchedServicer
from morag_meta import logs
from morag_meta.config.loading import load
from morag_meta.jobs.sequencer import Sequencer
from morag_meta.server import garbage
from morag_meta.server.app import App, database_options


class _Asleep(Sequencer):
    """A sequencer that leaves all events as they are."""

    async def run(self) -> None:
        """Wait until cancelled."""
        await asyncio.Event().wait()


class MeasuredApp(App):
    """The composition root, with one more service."""

    def put_to_sleep(self) -> None:
        """Have no event numbered."""
        self.feed.sequencer = _Asleep(self.database)

    def open_to_all(self, owner_id: str) -> None:
        """Ask nobody who they are, and take everybody for one user."""
        open_to_all(self._dispatcher, owner_id)

    def _make_server(self) -> grpc.aio.Server:
        server = super()._make_server()
        options = database_options(self._settings)
        raw, orm = RawDriver(options), OrmDriver(options)
        servicer = DispatchedServicer(raw, orm)
        bare = BareMethods(raw, self.authenticator, self._hasher)
        server.add_generic_rpc_handlers((self._dispatcher.handler(servicer), bare.handler()))
        return server


async def _serve() -> None:
    settings = load()
    logs.configure(settings.log_level, settings.log_format)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    app = MeasuredApp(settings, shared_port="--shared" in sys.argv)
    if "--asleep" in sys.argv:
        app.put_to_sleep()
    for owner_id in (word.removeprefix("--open=") for word in sys.argv if word.startswith("--open=")):
        app.open_to_all(owner_id)
    port = await app.start()
    garbage.settle()
    print(port, flush=True)
    await ended.wait()
    await app.stop(0.2)


if __name__ == "__main__":
    contract.register()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
