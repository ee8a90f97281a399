"""What a stream stands on beside its credential: a grant that may be revoked while it is open.

Asked after, like credentials, when the epoch of authorization changes, and once soon after the stream was
opened. How it is asked is the stream's feature's matter; when, and how a stream ends, ``rpc/streams.py``'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Protocol

from morag_meta.errors import MetaError


class Ground:
    """One stream's hold on something: ``key`` names it, so that many streams ask after it once."""

    __slots__ = ("checked_epoch", "holds", "key", "lost")

    def __init__(
        self, key: Hashable, holds: Callable[[], Awaitable[bool]], lost: Callable[[], MetaError]
    ) -> None:
        """Stand on what ``holds`` asks after; ``lost`` makes the error that the stream ends with."""
        self.key = key
        self.holds = holds
        self.lost = lost
        self.checked_epoch = -1


class Grounded(Protocol):
    """A stream, as far as it is needed here."""

    ground: Ground | None

    def end(self, error: MetaError) -> None:
        """End with an error."""


async def keep_grounded(streams: Iterable[Grounded], epoch: int) -> None:
    """End the streams whose ground no longer holds, of those not yet asked after in this epoch.

    Raises:
        MetaError: that is not known; ask again.
    """
    asked: dict[Hashable, list[tuple[Grounded, Ground]]] = {}
    for stream in streams:
        ground = stream.ground
        if ground is not None and ground.checked_epoch != epoch:
            asked.setdefault(ground.key, []).append((stream, ground))
    for grounded in asked.values():
        holds = await grounded[0][1].holds()
        for stream, ground in grounded:
            if holds:
                ground.checked_epoch = epoch
            else:
                stream.end(ground.lost())
