"""The feed: follows the log of all jobs, and gives each event to those who watch.

One poller per process reads what got a position since it looked last: its work grows with the changes,
not with the watchers. Commits of this process, and notices from other ones, only make it look sooner. It
knows rows and streams, and nothing of gRPC; a watcher's path stands in ``watch.py`` and ``watch_jobs.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import structlog

from morag_meta.db.database import Database
from morag_meta.db.faults import unavailable
from morag_meta.db.statements import EVERYONE
from morag_meta.errors import MetaError, Unavailable
from morag_meta.jobs.channels import PAGE, Channel, Event, Topic
from morag_meta.jobs.listing import Filter, is_by_server
from morag_meta.jobs.log import GONE
from morag_meta.jobs.resume import Seal
from morag_meta.jobs.sequencer import Sequencer
from morag_meta.jobs.store import LOG_TOPIC
from morag_meta.rpc.stream import Stream
from morag_meta.uow import UnitOfWork

__all__ = ["PAGE", "Event", "Feed", "Topic"]

T = TypeVar("T")
Row = Mapping[str, Any]
_log = structlog.get_logger(__name__)

_READ_AT_ONCE: Final = 500
_ASKED_AT_ONCE: Final = 1000  # jobs in one statement
_SILENT_SECONDS: Final = 5.0  # without an answer of the database, streams promise nothing any more
_IDLE_SECONDS: Final = 1.0  # between two looks for events that wait, while nobody watches


class Feed:
    """The topics and channels of one process, and their poller."""

    def __init__(
        self, database: Database, interval: float, end_all: Callable[[Callable[[], MetaError]], None]
    ) -> None:
        """Poll every ``interval`` seconds while somebody watches; ``end_all`` ends every stream."""
        self._database = database
        self._interval = interval
        self._end_all = end_all
        self.sequencer = Sequencer(database)
        self.position = 0
        """Up to where the log was read and given to those who watch."""
        self._end = 0  # the newest position there is, and the events that wait for one
        self._read_up_to = 0  # everything up to here was given, or had been removed
        self._removals = -1
        self._following = False
        self._topics: dict[str, Topic] = {}
        self._channels: dict[str, dict[Filter, Channel]] = {}
        self._by_server = 0  # how many of the channels are narrowed to servers
        self._callbacks: list[tuple[Callable[[Row], None], Callable[[], bool]]] = []
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading = asyncio.Semaphore(8)
        self._answered = time.monotonic()
        self._due = 0.0  # when the log is to be looked at whatever the hints say, in monotonic seconds

    def __len__(self) -> int:
        """Count the watched jobs and filters."""
        return len(self._topics) + sum(map(len, self._channels.values()))

    def start(self) -> None:
        """Listen to this process's commits; call it on the event loop, then run ``run`` there."""
        self._loop = asyncio.get_running_loop()
        self.sequencer.start()
        self._database.listen(self.hint)

    def hint(self, topics: Iterable[str]) -> None:
        """Hear from any thread that events got their positions, so that the poller looks at once."""
        if LOG_TOPIC in topics and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    def on_event(self, callback: Callable[[Row], None], waits: Callable[[], bool]) -> None:
        """Have ``callback`` hear the row of every event, on the event loop, while ``waits()`` is true.

        It hears of what got its position after the first poll that finds it waiting; call ``look_soon``
        when it begins to.
        """
        self._callbacks.append((callback, waits))

    def look_soon(self) -> None:
        """Have the poller look at once."""
        self._due = 0.0
        self._wake.set()

    async def settle(self) -> Row:
        """Give the log's row with everything in it that was committed before.

        Raises:
            Unavailable: the database is away.
        """
        found = await self.read(_look, point=True)
        if found["waiting"]:
            await self.sequencer.settle()
            found = await self.read(_look, point=True)
        return found

    def subscribe(self, job_id: str, found: Row, stream: Stream) -> tuple[Topic, bool]:
        """Have a stream woken at each change of a job, of which ``found`` is what the store said.

        Gives the topic, and whether it may have missed events since then.
        """
        self._begin(found["log_position"], found["removals"])
        topic = self._topics.get(job_id)
        if topic is None:
            topic = self._topics[job_id] = Topic(found["event_number"])
        topic.watchers.add(stream)
        return topic, found["log_position"] < self.position or found["removals"] != self._removals

    def unsubscribe(self, job_id: str, stream: Stream) -> None:
        """Forget a stream, and the job when nobody watches it any more."""
        topic = self._topics.get(job_id)
        if topic is not None:
            topic.watchers.discard(stream)
            if not topic.watchers:
                del self._topics[job_id]

    def join(self, chosen: Filter, seal: Seal, found: Row, stream: Stream) -> Channel:
        """Have a stream woken at each change that concerns a filter; ``found`` is the log's row."""
        self._begin(found["position"], found["removals"])
        channels = self._channels.setdefault(chosen.owner_id, {})
        channel = channels.get(chosen)
        if channel is None:
            channel = channels[chosen] = Channel(chosen, seal, self.position)
            self._by_server += is_by_server(chosen)
        channel.watchers.add(stream)
        return channel

    def leave(self, channel: Channel, stream: Stream) -> None:
        """Forget a stream, and the channel when nobody watches it any more."""
        channel.watchers.discard(stream)
        channels = self._channels.get(channel.chosen.owner_id, {})
        if not channel.watchers and channels.get(channel.chosen) is channel:
            del channels[channel.chosen]
            self._by_server -= is_by_server(channel.chosen)
            if not channels:
                del self._channels[channel.chosen.owner_id]

    def lag(self, position: int) -> int:
        """Give how many committed events lie behind a position, as far as is known."""
        return max(self._end - position, 0)

    async def read(self, work: Callable[[UnitOfWork], T], *, point: bool = False) -> T:
        """Read for a watcher; many who come at once wait here, not in the calls' queue."""
        async with self._reading:
            return await self._database.read(work, point=point)

    async def run(self) -> None:
        """Poll until cancelled."""
        numbering = asyncio.create_task(self.sequencer.run())
        try:
            while True:
                await self._try()
        finally:
            numbering.cancel()

    async def _try(self) -> None:
        try:
            await self._rest()
            # A database that is paused neither answers nor fails.
            async with asyncio.timeout(_SILENT_SECONDS):
                await self._poll()
        except TimeoutError:
            self._suffer(unavailable())
        except Unavailable as error:
            self._suffer(error)
            await asyncio.sleep(self._interval)
        except Exception:  # noqa: BLE001 - whatever it was, the watchers need the next poll
            _log.exception("polling for job events failed")
            await asyncio.sleep(self._interval)

    @property
    def _is_needed(self) -> bool:
        return bool(self._topics or self._channels or any(waits() for _, waits in self._callbacks))

    def _begin(self, position: int, removals: int) -> None:
        """Follow the log from a position, unless it is followed already."""
        if not self._following:
            self._following = True
            self.position, self._removals = max(position, self.position), removals
            self._read_up_to = 0
            self._answered = time.monotonic()  # nobody asked while nobody watched
            self._due = min(self._due, time.monotonic() + self._interval)
            self._wake.set()

    async def _rest(self) -> None:
        """Wait for a hint, or until the log is due."""
        pause = self._due - time.monotonic()
        if pause > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
        self._wake.clear()

    async def _poll(self) -> None:
        seen = self._read_up_to
        if time.monotonic() >= self._due:  # however busy the hints keep it: they do not tell everything
            seen = await self._look()
            self._following = self._following and self._is_needed
            pause = self._interval if self._following else max(self._interval, _IDLE_SECONDS)
            self._due = time.monotonic() + pause
        while self._following:
            rows = await self._database.read(lambda uow: uow.log.page(self.position, _READ_AT_ONCE))
            self._answered = time.monotonic()
            if rows:
                await self._note_removals(rows[-1]["removals"])
                self._give(await self._placed(rows) if self._by_server else rows)
            if len(rows) < _READ_AT_ONCE:
                self._read_up_to = seen
                return

    async def _placed(self, rows: list[Row]) -> list[Row]:
        """Give events with the ``server_id`` of each one's database, for who is narrowed to servers."""
        ids = {row["database_id"] for row in rows} - {None}
        found = await self._database.read(lambda uow: uow.databases.servers_of(ids)) if ids else {}
        return [{**row, "server_id": found.get(row["database_id"])} for row in rows]

    async def _look(self) -> int:
        """See how far the log goes, what waits to enter it, and whether something was removed."""
        found = await self._database.read(_look, point=True)
        self._answered = time.monotonic()
        if found["waiting"]:
            self.sequencer.wake()
        self._end = found["position"] + found["waiting"]
        if self._following:
            await self._note_removals(found["removals"])
            # Not before what was removed meanwhile is known: its watchers must not be taken past it.
            self.position = max(self.position, self._read_up_to)
        elif self._is_needed:
            self._begin(found["position"], found["removals"])
        return int(found["position"])

    def _give(self, rows: list[Row]) -> None:
        """Hand events to whom they concern; all at once, so that nobody sees the half of it."""
        for row in rows:
            event: Event | None = None
            topic = self._topics.get(row["job_id"])
            channels = [
                channel
                for owner in (row["owner_id"], EVERYONE)
                for channel in self._channels.get(owner, {}).values()
            ]
            if topic is not None or channels:
                event = Event(row)
            for callback, _ in self._callbacks:
                callback(row)
            if event is not None:
                if topic is not None:
                    topic.add(event)
                for channel in channels:
                    channel.add(event)
        self.position = rows[-1]["position"]
        self._end = max(self._end, self.position)

    async def _note_removals(self, removals: int) -> None:
        """After a removal: end the streams on jobs that are gone, and those that missed events."""
        if removals == self._removals:
            return
        floors = await self._database.read(lambda uow: uow.log.floors_above(self.position))
        if GONE in floors:
            watched = self._channels.keys() - {EVERYONE}
            gone = await self._database.read(lambda uow: uow.log.gone(watched))
            floors |= dict.fromkeys(gone, floors[GONE])
        for owner_id, floor in floors.items():
            for whose in (owner_id, EVERYONE):
                for channel in self._channels.get(whose, {}).values():
                    channel.cut(floor)
        ids = list(self._topics)
        for start in range(0, len(ids), _ASKED_AT_ONCE):
            asked = ids[start : start + _ASKED_AT_ONCE]
            found = await self._database.read(lambda uow, asked=asked: uow.jobs.newest_events(asked))  # type: ignore[misc]
            for job_id in asked:
                topic = self._topics.get(job_id)
                if topic is not None and job_id not in found:
                    topic.gone = True
                    topic.wake()
        self._removals = removals

    def _suffer(self, error: Unavailable) -> None:
        """End the streams when the database has not answered for so long that silence would be a lie."""
        silent = time.monotonic() - self._answered
        _log.warning("job events cannot be read", reason=str(error.reason), seconds=round(silent, 1))
        if len(self) and silent >= _SILENT_SECONDS:
            self._end_all(unavailable)


def _look(uow: UnitOfWork) -> Row:
    return uow.log.look()
