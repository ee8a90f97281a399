"""Who waits for jobs in this process, and who of them is told of which one.

A waiting call has no connection, transaction, timer or task of its own beyond its coroutine. One task
asks for all of them: at once when a change was committed or told of, and each second for jobs whose time
has come. A job wakes one worker, the one that has waited longest, and not the herd. The one waiting
call is ``ticket.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import structlog

from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.errors import MetaError
from morag_meta.jobs.store import TOPIC
from morag_meta.jobs.wanted import WAITING_STATES
from morag_meta.rpc.places import Places
from morag_meta.uow import UnitOfWork
from morag_meta.workers.actions import wanted_by
from morag_meta.workers.rules import Appetite
from morag_meta.workers.ticket import Job, Ticket

_log = structlog.get_logger(__name__)
_INTERVAL_SECONDS: Final = 1.0
_LOOKED_AT_ONCE: Final = 500  # jobs in one statement
_LOOKED_FOR: Final = 50  # appetites of a user, a statement each, in a look for everybody


class Openings:
    """The calls of one process that wait for jobs, the longest waiting first."""

    def __init__(self, database: Database, begun: Callable[[], None], places: Places) -> None:
        """Ask this database; ``begun`` is called when somebody comes to wait where nobody did.

        Each call that waits takes one of ``places``.
        """
        self._database = database
        self._begun = begun
        self._places = places
        self._tickets: dict[Ticket, None] = {}
        self._hinted: set[str] = set()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all_due = 0.0  # when everybody is to be looked after, in monotonic seconds
        self._ending: Callable[[], MetaError] | None = None

    def __len__(self) -> int:
        """Count the calls that wait."""
        return len(self._tickets)

    @property
    def waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._tickets)

    def start(self) -> None:
        """Listen to this process's commits; call it on the event loop, then run ``run`` there."""
        self._loop = asyncio.get_running_loop()
        self._database.listen(self.hint)

    def end(self, error: Callable[[], MetaError]) -> None:
        """End every wait, and those to come, with an error of its own."""
        self._ending = error
        for ticket in self._tickets:
            ticket.wake()

    def check(self) -> None:
        """Raise the error that waits end with, if they do."""
        if self._ending is not None:
            raise self._ending()

    def hint(self, topics: Iterable[str]) -> None:
        """Say from any thread which jobs changed, by the topics that announce it."""
        if not self._tickets or self._loop is None or self._loop.is_closed():
            return  # who comes just now looks for itself
        ids = [topic.removeprefix(TOPIC) for topic in topics if topic.startswith(TOPIC)]
        if ids:
            self._loop.call_soon_threadsafe(self._hint, ids)

    def note_event(self, event: Mapping[str, Any]) -> None:
        """Hear of a job's event, of whichever process; for the event loop's thread only."""
        if not self._tickets:
            return
        if event["state"] in WAITING_STATES:
            self._hint([event["job_id"]])
        elif event["previous_state"] in WAITING_STATES and event["worker_id"] is not None:
            for ticket in self._tickets:
                if ticket.repeats_of == event["worker_id"]:
                    ticket.leased = True
                    ticket.wake()

    def _hint(self, ids: list[str]) -> None:
        self._hinted.update(ids)
        self._wake.set()

    @contextmanager
    def ticket(
        self, user_id: str, appetite: Appetite | None, repeats_of: str | None = None
    ) -> Iterator[Ticket]:
        """Stand in the queue of those who wait; what a leaver was told of is passed on."""
        ticket = Ticket(self.check, self._places, user_id, appetite, repeats_of)
        self._tickets[ticket] = None
        if len(self._tickets) == 1:
            self._wake.set()
            self._begun()
        try:
            yield ticket
        finally:
            del self._tickets[ticket]
            ticket.leave()
            for job in (*ticket.trying.values(), *ticket.told.values()):
                self._tell(job)

    async def run(self) -> None:
        """Look for jobs on behalf of those who wait, until cancelled."""
        while True:
            try:
                await self._rest()
                await self._look_at_hinted()
                if time.monotonic() >= self._all_due:  # however busy the hints keep it
                    await self._look_for_all()
            except MetaError as error:  # looked at again in a second
                _log.info("the queue of jobs cannot be read", reason=str(error.reason))
                await asyncio.sleep(_INTERVAL_SECONDS)
            except Exception:  # noqa: BLE001 - whatever it was, those who wait need the next look
                _log.exception("looking for jobs failed")
                await asyncio.sleep(_INTERVAL_SECONDS)

    async def _rest(self) -> None:
        """Wait for a hint, or until it is time to look for everybody; while nobody waits for a hint alone."""
        self._wake.clear()
        pause = self._all_due - time.monotonic()
        if not self._hinted and (pause > 0 or not self._tickets):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if self._tickets else None):
                    await self._wake.wait()

    async def _look_at_hinted(self) -> None:
        hinted, self._hinted = sorted(self._hinted), set()
        for start in range(0, len(hinted), _LOOKED_AT_ONCE):
            if not self._tickets:
                return
            ids = hinted[start : start + _LOOKED_AT_ONCE]
            for job in await self._placed(await self._database.read(_ready(ids))):
                self._tell(job)

    async def _look_for_all(self) -> None:
        """Ask once for each appetite whose turn it is; in the order of who waits longest."""
        now = time.monotonic()
        self._all_due = now + _INTERVAL_SECONDS
        waiting = Counter(ticket.appetite for ticket in self._tickets)
        due = self._due_appetites()
        for ticket in self._tickets:
            if ticket.appetite in due:
                ticket.looked_time = now
        for appetite, count in waiting.items():
            if appetite is not None and appetite in due:
                for job in await self._placed(await self._database.read(_candidates(appetite, count))):
                    self._tell(job)

    def _due_appetites(self) -> set[Appetite]:
        """Give each user's appetites, and of many those that were looked for the longest time ago.

        So nobody's calls, however different, take the others' time. Most jobs are told of by a hint: this is
        for those whose time has come, and whoever waits for one long tries for it in the next call anyway.
        """
        looked: dict[str, dict[Appetite, float]] = {}
        for ticket in self._tickets:
            if ticket.appetite is not None:
                of_user = looked.setdefault(ticket.user_id, {})
                of_user[ticket.appetite] = min(ticket.looked_time, of_user.get(ticket.appetite, math.inf))
        due: set[Appetite] = set()
        for of_user in looked.values():
            due.update(heapq.nsmallest(_LOOKED_FOR, of_user, key=of_user.__getitem__))
        return due

    async def _placed(self, jobs: list[Row]) -> list[Job]:
        """Give jobs with the ``server_id`` of each one's database, where somebody is narrowed to servers."""
        ids = {job["database_id"] for job in jobs} - {None}
        if not ids or not any(ticket.is_by_server for ticket in self._tickets):
            return list(jobs)
        found = await self._database.read(lambda uow: uow.databases.servers_of(ids))
        return [{**job, "server_id": found.get(job["database_id"])} for job in jobs]

    def _tell(self, job: Job) -> None:
        """Wake the one who has waited longest of those who take a job, unless somebody was told of it."""
        chosen: Ticket | None = None
        for ticket in self._tickets:
            if job["id"] in ticket.told or job["id"] in ticket.trying:
                return
            free = not ticket.told and not ticket.trying
            if chosen is None and free and ticket.appetite is not None and ticket.appetite.takes(job):
                chosen = ticket
        if chosen is not None:
            chosen.told[job["id"]] = job
            chosen.wake()


def _ready(ids: list[str]) -> Callable[[UnitOfWork], list[Row]]:
    return lambda uow: uow.queue.ready(ids)


def _candidates(appetite: Appetite, limit: int) -> Callable[[UnitOfWork], list[Row]]:
    return lambda uow: uow.queue.candidates(wanted_by(appetite), limit)
