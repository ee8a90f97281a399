"""All open streams of a process: how many there are, how they show life, and who of them must end.

One task per process looks after all of them. The one stream, and how it sends, is ``stream.py``.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar

import structlog

from morag_meta.auth.principal import Principal
from morag_meta.errors import Forbidden, MetaError, Reason, Unauthenticated, Unavailable
from morag_meta.rpc.access import Access, check_access
from morag_meta.rpc.grounds import keep_grounded
from morag_meta.rpc.places import Places
from morag_meta.rpc.stream import Stream, StreamOptions
from morag_meta.rpc.turns import Turns

_log = structlog.get_logger(__name__)
_TICK_SECONDS: Final = 0.25
T = TypeVar("T")

_AT_ONCE: Final = 50
"""How many callers are read of in one unit of work."""


class Standings(Protocol):
    """What tells who a caller now is."""

    async def read_ahead(self, principals: Iterable[Principal]) -> None:
        """Read at once what ``recheck`` needs of each."""

    async def recheck(self, principal: Principal, peer: str = "") -> Principal:
        """Give the principal of a peer as it now is, or raise."""


class Streams:
    """All open streams of the process, and the one task that looks after them."""

    def __init__(self, options: StreamOptions, standings: Standings, epoch: Callable[[], int]) -> None:
        """Look after streams.

        ``epoch`` gives the newest known epoch of credentials, a change of which is when everybody is checked
        again.
        """
        self._options = options
        self._standings = standings
        self._epoch = epoch
        self._turns = Turns()
        self.places = Places(options.limit)
        """The places of each user, of which every open stream takes one."""
        self._open: set[Stream] = set()
        self._draining = False

    def __len__(self) -> int:
        """Count the open streams."""
        return len(self._open)

    def open(self, context: Any, principal: Principal, access: Access, peer: str) -> Stream:
        """Open a stream; give it back with ``close``.

        Raises:
            Unavailable: the server is draining.
            Exhausted: the user has too many streams and waiting calls here already (TOO_MANY_STREAMS).
        """
        if self._draining:
            raise draining()
        self.places.take(principal.user_id)
        stream = Stream(context, self._options, self._turns, principal, access, peer)
        self._open.add(stream)
        return stream

    def close(self, stream: Stream) -> None:
        """Forget a stream that ended."""
        stream.end_turn()
        self._open.discard(stream)
        self.places.leave(stream.principal.user_id)

    def drain(self) -> None:
        """End every stream, and refuse new ones, with the advice to resume elsewhere."""
        self._draining = True
        self.end_all(draining)

    def end_all(self, error: Callable[[], MetaError]) -> None:
        """End every stream with an error of its own."""
        for stream in list(self._open):
            stream.end(error())

    async def run(self) -> None:
        """Look after the streams until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._keep_time()
            try:
                await self._keep_out()
                await keep_grounded(self._open, self._epoch())
            except MetaError as error:  # looked at again at the next tick
                _log.info("the access of open streams is not known", reason=str(error.reason))
            except Exception:  # noqa: BLE001 - whatever it was, the other streams need the next tick
                _log.exception("looking after streams failed")

    def _keep_time(self) -> None:
        """Wake whose heartbeat is due, and end who is too old or whose reader is too slow."""
        now = time.monotonic()
        for stream in list(self._open):
            stream.cut_if_stuck(now)
            if now >= stream.ends_at:
                stream.end(
                    Unavailable("the stream reached its maximum age; resume", reason=Reason.STREAM_AGED)
                )
            elif stream.heartbeat_due:
                stream.wake()

    async def _keep_out(self) -> None:
        """End the streams of who lost access.

        All are asked after when the epoch of credentials changed, a new one at the first tick after it
        opened (its credential may have been checked just before a revoke), and who expired at that time.
        """
        epoch, now = self._epoch(), dt.datetime.now(dt.UTC)
        asked: dict[tuple[Principal, str], list[Stream]] = {}
        for stream in self._open:
            end = stream.expire_time
            if stream.access.public:
                continue  # nobody in particular has nothing to lose
            if stream.checked_epoch != epoch or (end is not None and end <= now):
                asked.setdefault((stream.principal, stream.peer), []).append(stream)
        for some in _parts(list(asked.items())):
            await self._standings.read_ahead({principal for (principal, _), _ in some})
            for (principal, peer), streams in some:
                await self._judge(principal, peer, streams, epoch)

    async def _judge(self, principal: Principal, peer: str, streams: list[Stream], epoch: int) -> None:
        try:
            present = await self._standings.recheck(principal, peer)
        except (Unauthenticated, Forbidden) as lost:
            for stream in streams:
                stream.end(type(lost)(lost.message, reason=lost.reason, metadata=lost.metadata))
            return
        for stream in streams:
            _keep_or_end(stream, present)
            stream.checked_epoch = epoch


def _parts(each: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(each), _AT_ONCE):
        yield each[start : start + _AT_ONCE]


def _keep_or_end(stream: Stream, present: Principal) -> None:
    """End a stream whose role or scopes changed: what it may reach was decided when it was opened."""
    if present.role is not stream.principal.role:
        needed = {"required_role": stream.access.minimum_role.name}
        changed = "the role has changed; watch again"
        stream.end(Forbidden(changed, reason=Reason.ROLE_TOO_LOW, metadata=needed))
        return
    if present.key_id:  # an access token's own end stays, and comes before its session's
        stream.expire_time = present.expire_time
    try:
        check_access(stream.access, present)
    except Forbidden as lost:
        stream.end(lost)
        return
    before = stream.principal
    changed_scopes = [
        scope for scope in stream.access.scopes if present.has_scope(scope) != before.has_scope(scope)
    ]
    if changed_scopes:
        needed = {"required_scope": stream.access.scopes[0]}
        changed = "the key's scopes have changed; watch again"
        stream.end(Forbidden(changed, reason=Reason.SCOPE_MISSING, metadata=needed))


def draining() -> Unavailable:
    """Say that the server is shutting down."""
    return Unavailable(
        "the server is shutting down; resume elsewhere", reason=Reason.SERVER_DRAINING, retry_after=0.1
    )
