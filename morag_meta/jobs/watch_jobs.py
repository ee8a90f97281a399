"""One watcher's path over many jobs: what matches now, then each change, from its own position on.

What wakes it, and what it has in common with others of the same filter, is ``feed.py``'s matter; how a
token is made ``resume.py``'s, and how a stream is ended ``rpc/streams.py``'s.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.auth.generations import Keys
from morag_meta.auth.narrowing import Reach
from morag_meta.auth.principal import Role
from morag_meta.auth.sharing import Grantee
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import Forbidden, OutOfRange, Reason, Unavailable, not_found
from morag_meta.jobs.channels import PAGE, Channel, Event, Frame
from morag_meta.jobs.convert import filter_from_proto, job_to_proto
from morag_meta.jobs.feed import Feed
from morag_meta.jobs.listing import Filter
from morag_meta.jobs.resume import MOST_SEEN, Seal
from morag_meta.jobs.sharing import as_owner_sees, lean, may_be_shared
from morag_meta.rpc.call import Call
from morag_meta.rpc.stream import Stream
from morag_meta.rpc.times import to_timestamp
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import jobs_pb2 as pb

_WINDOW: Final = 5000  # positions that one statement goes through for a watcher that is behind
_SNAPSHOT_PAGE: Final = 100  # jobs, which may be large


@dataclass(frozen=True, slots=True)
class Wish:
    """What a watcher asks for, once it is known that it may."""

    chosen: Filter
    token: str
    snapshot: bool
    conflate: bool


def wish_of(request: pb.WatchJobsRequest, call: Call) -> tuple[Wish, str]:
    """Read a request; beside the wish, whose workers the filter must name (empty: it need not name any).

    Raises:
        Invalid: the filter names a state that is none.
        Forbidden: OWNER_NOT_ALLOWED, or FILTER_NOT_ALLOWED where a worker's key names no worker.
    """
    owner_id, must_own = _whose(call, request.filter.owner_id)
    chosen = filter_from_proto(request.filter, Reach(owner_id, call.narrowing))
    if must_own and not chosen.worker_ids:
        raise _not_its_workers()
    chosen = replace(
        chosen,
        kinds=tuple(sorted(chosen.kinds)),
        document_types=tuple(sorted(chosen.document_types)),
        states=tuple(sorted(chosen.states)),
        worker_ids=tuple(sorted(chosen.worker_ids)),
    )
    wish = Wish(chosen, request.resume_token, request.include_snapshot, request.conflate)
    return wish, must_own


def _whose(call: Call, named: str) -> tuple[str, str]:
    """Give whose jobs a filter means, and whose workers it must name (empty: it need name none)."""
    principal = call.principal
    works_for_all = principal.has_scope("jobs:work:all")
    as_worker = works_for_all and named == EVERYONE and principal.role is not Role.ADMIN
    if principal.has_scope("jobs:read") and not as_worker:
        return call.owner_for(named), ""
    if works_for_all:
        return named or EVERYONE, call.own
    if named not in ("", call.own):
        raise Forbidden("a key that may only work names no other owner", reason=Reason.OWNER_NOT_ALLOWED)
    return call.own, call.own


async def watch_jobs(
    feed: Feed, keys: bytes | Keys, stream: Stream, wish: Wish, must_own: str, grantee: Grantee | None = None
) -> None:
    """Send the snapshot, where it is wished for, then every change that concerns a filter, until the end.

    Raises:
        NotFound: the filter's database is no longer shared with the grantee.
        Forbidden: FILTER_NOT_ALLOWED, as a worker's key names workers that are not its owner's.
        Invalid: INVALID_RESUME_TOKEN.
        OutOfRange: POSITION_TRIMMED or POSITION_BEYOND_END.
        Unavailable: the stream is to be resumed, with the ``resume_token`` of the metadata.
    """
    if must_own:
        named = set(wish.chosen.worker_ids)
        if await feed.read(lambda uow: uow.log.own_workers(must_own, named)) != named:
            raise _not_its_workers()
    elif grantee is not None and may_be_shared(wish.chosen, grantee):
        wish = await _shared(feed, stream, wish, grantee)
    found = await feed.settle()
    seal = Seal(keys, found["store_id"], wish.chosen)
    watcher = _Watcher(feed, stream, feed.join(wish.chosen, seal, found, stream), conflate=wish.conflate)
    try:
        await watcher.begin(wish, found["position"])
        del wish, found
        await watcher.follow()
    except Unavailable as interrupted:
        interrupted.metadata["resume_token"] = watcher.token()
        raise
    finally:
        feed.leave(watcher.channel, stream)


async def _shared(feed: Feed, stream: Stream, wish: Wish, grantee: Grantee) -> Wish:
    """Let a wish mean the owner's jobs, where its database is shared, for as long as it is."""
    chosen = await feed.read(lambda uow: as_owner_sees(uow, wish.chosen, grantee), point=True)
    if chosen.owner_id == grantee.user_id:
        return wish
    lean(feed, stream, grantee, chosen.database_id, partial(not_found, "database", chosen.database_id))
    return replace(wish, chosen=chosen)


class _Watcher:
    """A stream on a filter, and up to where it has seen the log."""

    __slots__ = ("_conflate", "_feed", "_live", "_seen", "_stream", "channel", "position")

    def __init__(self, feed: Feed, stream: Stream, channel: Channel, *, conflate: bool) -> None:
        self._feed = feed
        self._stream = stream
        self._conflate = conflate
        self._live = False  # before that a client that comes back begins again
        # Jobs whose snapshot is newer than the position, with the number of the last event in it.
        self._seen: dict[str, int] = {}
        self.channel = channel
        self.position = 0

    def token(self) -> str:
        """Give the token of where this watcher is."""
        seal = self.channel.seal
        return seal.make(self.position, self._seen) if self._live else seal.begin()

    async def begin(self, wish: Wish, end: int) -> None:
        """Take the place that is wished for, and send what comes before the changes.

        Raises:
            Invalid, OutOfRange: the token is of no use.
        """
        self.position = end
        place = self.channel.seal.open(wish.token) if wish.token else None
        if place is not None and place.position is not None:
            self.position, self._seen, self._live = place.position, dict(place.seen), True
            if place.position > end:
                raise OutOfRange(
                    "the log ends before this position: it was restored from an older copy; begin again",
                    reason=Reason.POSITION_BEYOND_END,
                )
            await self._feed.read(self._check_floor)
            return
        size = await self._send_snapshot() if wish.snapshot or place is not None else 0
        while len(self._seen) > MOST_SEEN:  # more than a token can name
            await self._catch_up()
            if len(self._seen) > MOST_SEEN:
                await self._stream.wait()
        self._live = True
        sync = pb.JobSync(snapshot_size=size, server_time=_now())
        await self._send(pb.JobFrame(sync=sync, resume_token=self.token()))

    async def follow(self) -> None:
        """Send what comes until the stream is to end."""
        while True:
            await self._catch_up()
            await self._beat_if_due()
            await self._stream.wait()

    async def _send_snapshot(self) -> int:
        """Send the jobs that match, a page at a time, and remember those that may come again as changes."""
        token, size, last = self.channel.seal.begin(), 0, None
        while True:
            rows = await self._feed.read(
                lambda uow, last=last: uow.jobs.snapshot(self.channel.chosen, last, _SNAPSHOT_PAGE)  # type: ignore[misc]
            )
            for row in rows:
                if row["newest_position"] is None or row["newest_position"] > self.position:
                    self._seen[row["id"]] = row["event_number"]
                await self._send(pb.JobFrame(snapshot=job_to_proto(row), resume_token=token))
            size += len(rows)
            if len(rows) < _SNAPSHOT_PAGE:
                return size
            last = rows[-1]

    async def _catch_up(self) -> None:
        """Send every change that is known of.

        A coroutine of its own, so that none of the frames is held while the watcher waits.
        """
        while True:
            end = self._feed.position
            frames = self.channel.after(self.position)
            if frames is None:
                frames, end = await self._read_window(end)
            for frame in frames:
                self._stream.check()
                await self._send_change(frame)
            self.position = max(self.position, end)
            self._stream.check()
            if self.position >= self._feed.position:
                return
            await self._beat_if_due()

    async def _send_change(self, frame: Frame) -> None:
        event = frame.event
        # Before it is sent: a status that says where to resume arrives behind what was begun.
        self.position = event.position
        if self._seen:
            newest = self._seen.get(event.job_id, 0)
            if newest <= event.number:
                self._seen.pop(event.job_id, None)
            if event.number <= newest:
                return
        if self._conflate and not event.final and self.channel.outdated(event):
            return
        if self._live and not self._seen:
            await self._stream.send(frame.data)
        else:
            await self._stream.send(frame.with_token(self.token()))

    async def _read_window(self, end: int) -> tuple[list[Frame], int]:
        """Read changes behind the position, and give up to where that went: no further than is known of.

        Raises:
            OutOfRange: some of them are no longer kept (POSITION_TRIMMED).
        """
        end = min(end, self.position + _WINDOW)

        def read(uow: UnitOfWork) -> list[Row]:
            rows = uow.log.page_of(self.channel.chosen, self.position, end, PAGE)
            self._check_floor(uow)  # afterwards, as what was removed meanwhile is missing in the rows
            return rows

        rows = await self._feed.read(read)
        if len(rows) == PAGE:
            end = rows[-1]["position"]
        frames = [frame for frame in (self.channel.frame(Event(row)) for row in rows) if frame is not None]
        return (_last_of_each(frames) if self._conflate else frames), end

    def _check_floor(self, uow: UnitOfWork) -> None:
        floor = uow.log.floor(self.channel.chosen.owner_id)
        if self.position < floor:
            raise OutOfRange(
                "events behind this position are no longer kept",
                reason=Reason.POSITION_TRIMMED,
                metadata={"oldest_resume_token": self.channel.seal.make(floor)},
            )

    async def _beat_if_due(self) -> None:
        if self._stream.heartbeat_due:
            beat = pb.JobHeartbeat(server_time=_now(), lag=self._feed.lag(self.position))
            await self._send(pb.JobFrame(heartbeat=beat, resume_token=self.token()))

    async def _send(self, frame: pb.JobFrame) -> None:
        await self._stream.send(frame.SerializeToString())


def _last_of_each(frames: list[Frame]) -> list[Frame]:
    """Leave out the changes that a later one of the same job makes old; final ones stay."""
    last = {frame.event.job_id: frame for frame in frames}
    return [frame for frame in frames if frame.event.final or last[frame.event.job_id] is frame]


def _not_its_workers() -> Forbidden:
    return Forbidden(
        "a worker's key watches the jobs of its owner's workers alone; name them in filter.worker_ids",
        reason=Reason.FILTER_NOT_ALLOWED,
    )


def _now() -> Timestamp | None:
    return to_timestamp(dt.datetime.now(dt.UTC))
