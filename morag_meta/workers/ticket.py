"""One call that waits for jobs: what it takes, what it was told of, and how it sleeps.

It waits in one of its user's places, which the user's streams have too (``rpc/places.py``), from when it
first has to wait: a call that finds a job at once is answered however many others wait. Who of those who
wait is told of which job is ``openings.py``'s matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from morag_meta.rpc.places import Places
from morag_meta.workers.rules import Appetite

_CROWDED_SECONDS: Final = 1.0  # until it may help to ask again where no place was left: such calls end

Job = Mapping[str, Any]


class Ticket:
    """One waiting call: what it takes, and which jobs it was told of and has not tried for."""

    __slots__ = (
        "_check",
        "_has_place",
        "_places",
        "_waiter",
        "appetite",
        "leased",
        "looked_time",
        "repeats_of",
        "told",
        "trying",
        "user_id",
    )

    def __init__(
        self,
        check: Callable[[], None],
        places: Places,
        user_id: str,
        appetite: Appetite | None,
        repeats_of: str | None,
    ) -> None:
        """Wait on behalf of a user for jobs of this appetite; None takes nothing, and is never told of any.

        ``check`` raises the error that waits end with, if they do. ``repeats_of`` is the worker of a call
        that may be one of several with one request id.
        """
        self._check = check
        self._places = places
        self._has_place = False
        self.user_id = user_id
        self.looked_time = time.monotonic()  # when jobs of the appetite were last looked for
        self._waiter: asyncio.Future[None] | None = None
        self.appetite = appetite
        self.repeats_of = repeats_of
        self.leased = False  # whether its worker got a lease meanwhile: perhaps by the same request
        self.told: dict[str, Job] = {}
        self.trying: dict[str, Job] = {}

    @property
    def is_by_server(self) -> bool:
        """Whether what it takes is known only with the servers of jobs' databases."""
        narrowing = None if self.appetite is None else self.appetite.narrowing
        return narrowing is not None and bool(narrowing.servers)

    def set_out(self) -> None:
        """Say that the jobs told of are being tried for."""
        self.trying, self.told = self.told, {}
        self.leased = False

    def got(self, job_ids: Iterable[str]) -> None:
        """Say which jobs were had, of which nobody else is to be told."""
        for job_id in job_ids:
            self.told.pop(job_id, None)
            self.trying.pop(job_id, None)

    async def wait(self, seconds: float) -> bool:
        """Sleep until it is worth a try, or for so many seconds; whether it is the former.

        Raises:
            Exhausted: there is no place left in which the user's calls may wait (TOO_MANY_STREAMS).
            MetaError: the process ends.
        """
        self.trying = {}
        if not self.told and not self.leased and seconds > 0:
            self._check()
            self._take_place()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(seconds):
                    await self._waiter
            except TimeoutError:
                pass
            finally:
                self._waiter = None
        self._check()
        return bool(self.told) or self.leased

    def _take_place(self) -> None:
        if not self._has_place:
            self._places.take(self.user_id, retry_after=_CROWDED_SECONDS)
            self._has_place = True

    def leave(self) -> None:
        """Give the place back in which the call waited, if it did."""
        if self._has_place:
            self._has_place = False
            self._places.leave(self.user_id)

    def wake(self) -> None:
        """End the sleep; for the event loop's thread only."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
