"""One open stream: how it sends, sleeps, takes its turn, and is ended.

A waiting stream has no task, timer or connection of its own beyond the coroutine that gRPC gives it. Who
looks after all of them is ``streams.py``; what a stream sends is its feature's matter.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any, Final

import grpc

from morag_meta.auth.principal import Principal
from morag_meta.errors import MetaError, Reason, Unavailable
from morag_meta.rpc.access import Access
from morag_meta.rpc.grounds import Ground
from morag_meta.rpc.turns import Turns

_AGE_JITTER: Final = 0.1
_PARTING_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Times of streams, in seconds, and how many of a user's calls may wait in this process."""

    heartbeat: float = 10.0
    write_timeout: float = 20.0
    max_age: float = 3600.0
    limit: int = 10_000


class Stream:
    """The server's side of one open stream."""

    __slots__ = (
        "_context",
        "_cut",
        "_loop",
        "_options",
        "_task",
        "_turn",
        "_turns",
        "_waiter",
        "_woken",
        "_writing_since",
        "access",
        "checked_epoch",
        "ending",
        "ends_at",
        "expire_time",
        "ground",
        "peer",
        "principal",
        "sent_at",
    )

    def __init__(
        self,
        context: Any,
        options: StreamOptions,
        turns: Turns,
        principal: Principal,
        access: Access,
        peer: str,
    ) -> None:
        """Open the stream of one call, in the task that will send."""
        self._context = context
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._turns = turns
        self._turn = -1  # it was not woken yet
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self._writing_since = 0.0  # 0 while nothing is being sent
        self._cut = False
        self.principal = principal
        self.expire_time = principal.expire_time
        self.access = access
        self.peer = peer
        self.checked_epoch = -1
        self.sent_at = time.monotonic()
        self.ends_at = self.sent_at + options.max_age * random.SystemRandom().uniform(1 - _AGE_JITTER, 1)
        self.ending: MetaError | None = None
        self.ground: Ground | None = None  # what it stands on beside the credential

    @property
    def heartbeat_due(self) -> bool:
        """Whether nothing was sent for the heartbeat's interval."""
        return time.monotonic() - self.sent_at >= self._options.heartbeat

    async def send(self, data: bytes) -> None:
        """Send one serialized message.

        Raises:
            MetaError: the stream is to end, for the reason it gives.
            Unavailable: the reader took nothing for the write timeout (READER_TOO_SLOW).
            CancelledError: the client has left.
        """
        self.check()
        self._writing_since = time.monotonic()
        try:
            # Without a timeout of its own, which would cost a fifth of sending: whoever looks after the
            # streams sets the end.
            await self._context.write(data)
        except asyncio.CancelledError:
            if self._cut and self._task is not None and not self._task.uncancel():
                raise self.ending or _too_slow() from None
            raise
        except grpc.aio.InternalError:
            # The client has left, which gRPC tells whoever writes before it cancels the call.
            raise asyncio.CancelledError from None
        finally:
            self._writing_since = 0.0
        self.sent_at = time.monotonic()

    def check(self) -> None:
        """Raise the error that the stream is to end with, if there is one."""
        if self.ending is not None:
            raise self.ending

    async def wait(self) -> None:
        """Sleep until somebody wakes the stream; at once if that happened since the last sleep."""
        if not self._woken:
            self.end_turn()
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
                if not waiter.cancelled():  # who leaves just then has a turn too, and gives it back
                    self._turn = self._turns.round
        self._woken = False

    def wake(self) -> None:
        """Let the stream look again when its turn comes; for the event loop's thread only."""
        if not self._woken:
            self._woken = True
            if self._waiter is not None:
                self._turns.ask(self._waiter)

    def end_turn(self) -> None:
        """Leave the turn, if the stream has one, to others."""
        self._turns.end(self._turn)
        self._turn = -1

    def end(self, error: MetaError) -> None:
        """Have the stream end with ``error``, also when it is stuck in a write."""
        if self.ending is None:
            self.ending = error
            # What is being sent may be through in an instant; cut short, nobody would know whether it was.
            if self._writing_since:
                self._loop.call_later(_PARTING_SECONDS, self._cut_short, self._writing_since)
        self.wake()

    def cut_if_stuck(self, now: float) -> None:
        """End a write that has outlived the write timeout; ``now`` is monotonic seconds."""
        if self._writing_since and now - self._writing_since >= self._options.write_timeout:
            self._cut_short(self._writing_since)

    def _cut_short(self, began: float) -> None:
        """End the write that began then, if it still goes on."""
        if self._writing_since == began and not self._cut and self._task is not None:
            self._cut = True
            self._task.cancel()


def _too_slow() -> Unavailable:
    return Unavailable("the reader took nothing for too long; resume", reason=Reason.READER_TOO_SLOW)
