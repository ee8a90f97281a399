"""One watcher's path: from the number it saw last through what is kept to what happens.

It owns the position; what wakes it is ``feed.py``'s matter, and how bytes are sent, and a stream is
ended, ``rpc/streams.py``'s.
"""

from __future__ import annotations

import datetime as dt
from functools import partial

from morag_meta.auth.narrowing import Whose, narrowing_of
from morag_meta.auth.sharing import Grantee
from morag_meta.db.unit import Row
from morag_meta.errors import OutOfRange, Reason, Unavailable, not_found
from morag_meta.jobs.channels import PAGE, Event, Topic
from morag_meta.jobs.feed import Feed
from morag_meta.jobs.rules import FINAL_STATES
from morag_meta.jobs.sharing import lean
from morag_meta.rpc.stream import Stream
from morag_meta.rpc.times import to_timestamp
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import jobs_pb2 as pb


async def watch(
    feed: Feed, stream: Stream, reach: Whose, job_id: str, after_sequence: int, grantee: Grantee | None = None
) -> None:
    """Send every event of a job after a number, in order and once each, and return after the final one.

    Raises:
        NotFound: there is no such job within reach or shared, or it was deleted, revoked, or left a narrowed
            key's reach meanwhile.
        OutOfRange: POSITION_BEYOND_END or POSITION_TRIMMED, naming the number that is usable.
        Unavailable: the stream is to be resumed, after the number in ``resume_after_sequence``.
    """
    watcher = _Watcher(feed, stream, reach, job_id, after_sequence, grantee)
    try:
        found, over = await watcher.open()
        if over:
            return
        topic, unsure = feed.subscribe(job_id, found, stream)
        try:
            await watcher.follow(topic, behind=unsure or watcher.position < found["event_number"])
        finally:
            feed.unsubscribe(job_id, stream)
    except Unavailable as interrupted:
        interrupted.metadata["resume_after_sequence"] = str(watcher.position)
        raise


class _Watcher:
    """A stream on a job, and the number of the last event that it sent."""

    __slots__ = ("_feed", "_grantee", "_is_by_server", "_job_id", "_reach", "_stream", "position")

    def __init__(
        self,
        feed: Feed,
        stream: Stream,
        reach: Whose,
        job_id: str,
        position: int,
        grantee: Grantee | None = None,
    ) -> None:
        self._feed = feed
        self._stream = stream
        self._reach = reach
        self._job_id = job_id
        self._grantee = grantee
        self._is_by_server = False  # whether it is reached for as long as its database is on some server
        self.position = position

    async def open(self) -> tuple[Row, bool]:
        """Check the position; give what is known of the job, and whether nothing is left to come."""
        found = await self._feed.read(
            lambda uow: uow.jobs.position(self._reach, self._job_id, self._grantee), point=True
        )
        if self._grantee is not None and "granted_level" in found:
            self._reach = found["owner_id"]  # as long as the grant holds
            lost = partial(not_found, "job", self._job_id)
            lean(self._feed, self._stream, self._grantee, found["database_id"], lost)
        narrowing = narrowing_of(self._reach)
        self._is_by_server = narrowing is not None and not narrowing.covers(found["database_id"], None)
        newest, oldest = found["event_number"], found["oldest"]
        if self.position > newest:
            raise OutOfRange(
                f"the job's last event is {newest}",
                reason=Reason.POSITION_BEYOND_END,
                metadata={"last_sequence": str(newest)},
            )
        floor = newest if oldest is None else oldest - 1
        if self.position < floor:
            raise _trimmed(floor)
        return found, self.position == newest and found["state"] in FINAL_STATES

    async def follow(self, topic: Topic, *, behind: bool) -> None:
        """Send what comes until the final event, or until the stream is to end."""
        while not await self._catch_up(topic, behind=behind):
            behind = False
            if self._stream.heartbeat_due:
                await self._check_reach()
                await self._stream.send(self._heartbeat())
            await self._stream.wait()

    async def _catch_up(self, topic: Topic, *, behind: bool) -> bool:
        """Send every event that is known of; give whether the last one was the job's end.

        A coroutine of its own, so that none of the events is held while the watcher waits.
        """
        while True:
            events = None if behind else topic.after(self.position)
            if events is None:
                events = await self._read_page()
                behind = len(events) == PAGE
                if not events:  # what was known of is gone, and so is the job, or what it kept
                    await self.open()
            if events:
                await self._check_reach()
            for event in events:
                self._stream.check()
                # Before it is sent: a status that says where to resume arrives behind what was begun.
                self.position = event.number
                await self._stream.send(event.data)
                if event.final:
                    return True
            self._stream.check()
            if topic.gone:
                raise not_found("job", self._job_id)
            if not behind and self.position >= topic.newest:
                return False

    async def _read_page(self) -> list[Event]:
        """Read what follows the position; what is kept must begin right there."""

        def read(uow: UnitOfWork) -> list[Event]:
            rows = uow.jobs.events_after(self._reach, self._job_id, self.position, PAGE)
            return [Event(row) for row in rows]

        events = await self._feed.read(read)
        if events and events[0].number != self.position + 1:
            raise _trimmed(events[0].number - 1)
        return events

    async def _check_reach(self) -> None:
        """Ask whether a key that is narrowed to servers still reaches the job: its database may have gone.

        Nothing tells of that but the database itself, so it is asked each time something is to be sent. What
        a key names by its own id, or reaches without narrowing, stays within reach.

        Raises:
            NotFound: it does not.
        """
        if self._is_by_server:
            await self._feed.read(lambda uow: uow.jobs.position(self._reach, self._job_id), point=True)

    def _heartbeat(self) -> bytes:
        now = to_timestamp(dt.datetime.now(dt.UTC))
        return pb.JobFrame(
            heartbeat=pb.JobHeartbeat(sequence=self.position, server_time=now)
        ).SerializeToString()


def _trimmed(oldest: int) -> OutOfRange:
    return OutOfRange(
        f"the events up to {oldest} are no longer kept",
        reason=Reason.POSITION_TRIMMED,
        metadata={"oldest_after_sequence": str(oldest)},
    )
