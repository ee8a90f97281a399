"""The feed: follows the changes of watched jobs and wakes those who watch them.

One poller per process asks the database for the newest event number of each watched job: that is the
truth. Commits of this process, and notices from other ones, only make it ask sooner. It knows rows and
streams, and nothing of gRPC; one watcher's path stands in ``watch.py``.
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
from morag_meta.jobs.convert import event_to_proto
from morag_meta.jobs.rules import FINAL_STATES
from morag_meta.jobs.store import TOPIC
from morag_meta.rpc.streams import Stream
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import jobs_pb2 as pb

T = TypeVar("T")
_log = structlog.get_logger(__name__)

PAGE: Final = 200
"""The most events that one read gives to one watcher, and that a topic remembers."""
_ASKED_AT_ONCE: Final = 1000  # jobs in one statement of the poller
_SILENT_SECONDS: Final = 5.0  # without an answer of the database, streams promise nothing any more


class Event:
    """An event as it is sent: its number, its bytes, and whether nothing follows it."""

    __slots__ = ("data", "final", "number")

    def __init__(self, row: Mapping[str, Any]) -> None:
        """Make the frame of an event's row."""
        message = event_to_proto(row)
        self.number = message.sequence
        self.data = pb.JobFrame(event=message).SerializeToString()
        self.final = row["state"] in FINAL_STATES


class Topic:
    """A watched job: its newest known event, the latest frames, and who watches."""

    __slots__ = ("events", "gone", "newest", "watchers")

    def __init__(self, newest: int) -> None:
        """Begin at the newest number that a watcher saw when it came."""
        self.newest = newest
        self.events: list[Event] = []
        self.watchers: set[Stream] = set()
        self.gone = False

    def after(self, number: int) -> list[Event] | None:
        """Give the remembered events after a number, or None where some of them are not remembered."""
        if number >= self.newest:
            return []
        if not self.events or self.events[0].number > number + 1:
            return None
        return [event for event in self.events if event.number > number]

    def wake(self) -> None:
        """Have every watcher look."""
        for stream in self.watchers:
            stream.wake()


class Feed:
    """The topics of one process, and their poller."""

    def __init__(
        self, database: Database, interval: float, end_all: Callable[[Callable[[], MetaError]], None]
    ) -> None:
        """Poll every ``interval`` seconds while somebody watches; ``end_all`` ends every stream."""
        self._database = database
        self._interval = interval
        self._end_all = end_all
        self._topics: dict[str, Topic] = {}
        self._hinted: set[str] = set()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading = asyncio.Semaphore(8)
        self._answered = time.monotonic()
        self._all_due = 0.0  # when every topic is to be asked after, in monotonic seconds

    def __len__(self) -> int:
        """Count the watched jobs."""
        return len(self._topics)

    def start(self) -> None:
        """Listen to this process's commits; call it on the event loop, then run ``run`` there."""
        self._loop = asyncio.get_running_loop()
        self._database.listen(self.hint)

    def hint(self, topics: Iterable[str]) -> None:
        """Say from any thread which topics changed, so that the poller looks at once."""
        ids = [topic.removeprefix(TOPIC) for topic in topics if topic.startswith(TOPIC)]
        # Who subscribes just now may be missed here, as the next poll looks at every topic.
        ids = [job_id for job_id in ids if job_id in self._topics]
        if ids and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hint, ids)

    def _hint(self, ids: list[str]) -> None:
        watched = [job_id for job_id in ids if job_id in self._topics]
        if watched:
            self._hinted.update(watched)
            self._wake.set()

    def subscribe(self, job_id: str, newest: int, stream: Stream) -> Topic:
        """Have a stream woken at each change of a job."""
        if not self._topics:
            self._answered = time.monotonic()  # nobody asked while nobody watched
        topic = self._topics.get(job_id)
        if topic is None:
            topic = self._topics[job_id] = Topic(newest)
        if newest > topic.newest:
            self._hinted.add(job_id)
        topic.watchers.add(stream)
        self._wake.set()
        return topic

    def unsubscribe(self, job_id: str, stream: Stream) -> None:
        """Forget a stream, and the job when nobody watches it any more."""
        topic = self._topics.get(job_id)
        if topic is not None:
            topic.watchers.discard(stream)
            if not topic.watchers:
                del self._topics[job_id]

    async def read(self, work: Callable[[UnitOfWork], T], *, point: bool = False) -> T:
        """Read for a watcher; many who come at once wait here, not in the calls' queue."""
        async with self._reading:
            return await self._database.read(work, point=point)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
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

    async def _rest(self) -> None:
        """Wait for a hint, or until all topics are due; without watchers for a hint alone."""
        self._wake.clear()
        pause = self._all_due - time.monotonic()
        if not self._hinted and pause > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if self._topics else None):
                    await self._wake.wait()
        if time.monotonic() >= self._all_due:  # however busy the hints keep it: they do not tell everything
            self._hinted.update(self._topics)
            self._all_due = time.monotonic() + self._interval

    async def _poll(self) -> None:
        ids, self._hinted = [job_id for job_id in self._hinted if job_id in self._topics], set()
        for start in range(0, len(ids), _ASKED_AT_ONCE):
            asked = ids[start : start + _ASKED_AT_ONCE]
            known = {job_id: self._topics[job_id].newest for job_id in asked if job_id in self._topics}
            found = await self._database.read(lambda uow, known=known: _look(uow, known))  # type: ignore[misc]
            self._answered = time.monotonic()
            for job_id in known:
                self._tell(job_id, found.get(job_id))

    def _tell(self, job_id: str, news: list[Event] | None) -> None:
        topic = self._topics.get(job_id)
        if topic is None:
            return
        if news is None:
            topic.gone = True
            topic.wake()
        elif news:
            fresh = [event for event in news if event.number > topic.newest]
            if fresh:
                topic.events = [*topic.events, *fresh][-PAGE:]
                topic.newest = fresh[-1].number
            if len(news) == PAGE:  # there may be more than one page
                self._hinted.add(job_id)
                self._wake.set()
            topic.wake()

    def _suffer(self, error: Unavailable) -> None:
        """End the streams when the database has not answered for so long that silence would be a lie."""
        silent = time.monotonic() - self._answered
        _log.warning("job events cannot be read", reason=str(error.reason), seconds=round(silent, 1))
        if self._topics and silent >= _SILENT_SECONDS:
            self._end_all(unavailable)


def _look(uow: UnitOfWork, known: dict[str, int]) -> dict[str, list[Event]]:
    """Give the new events of each job that still exists: an empty list where nothing changed."""
    found: dict[str, list[Event]] = {}
    for job_id, newest in uow.jobs.newest_events(list(known)).items():
        changed = newest > known[job_id]
        rows = uow.jobs.events_after(EVERYONE, job_id, known[job_id], PAGE) if changed else []
        found[job_id] = [Event(row) for row in rows]
    return found
