"""Passwords: their limits, and bcrypt in threads of its own, so that a log-in delays nobody else.

A hash at cost 12 takes about 0.3 s of a core. The threads are few and what waits for them is bounded:
beyond that a caller is told to come back. What does not live here: whose password it is (``users/``).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt

from morag_meta.errors import Reason, Unavailable, invalid

FEWEST_CHARACTERS: Final = 8
MOST_BYTES: Final = 72
"""What bcrypt looks at; a longer password would be cut without a word, so it is refused."""

COST: Final = 12
_SECONDS_EACH: Final = 0.3
T = TypeVar("T")


def check_password(password: str, field: str = "password", *, new: bool = False) -> None:
    """Refuse what bcrypt would cut or could not take, and as a ``new`` one what is too short.

    Raises:
        Invalid: names ``field``; the password itself is not in the text.
    """
    if new and len(password) < FEWEST_CHARACTERS:
        raise invalid(field, f"has fewer than {FEWEST_CHARACTERS} characters")
    if "\x00" in password:
        raise invalid(field, "holds a NUL character")
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        raise invalid(field, "is not valid Unicode") from None
    if size > MOST_BYTES:
        raise invalid(field, f"is longer than {MOST_BYTES} bytes of UTF-8")


def hash_password(password: str, cost: int = COST) -> str:
    """Hash a password in the calling thread, which takes about 0.3 s at cost 12.

    Raises:
        Invalid: as ``check_password`` for a new one.
    """
    check_password(password, new=True)
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def _nobody(cost: int) -> str:
    """Give a hash that no password has, to compare with where there is none: the same work, never a match."""
    return f"$2b${cost:02d}$" + "." * 53


def _cost_of(password_hash: str) -> int:
    return int(password_hash.split("$")[2])


def _compare(password: bytes, known: str, cost: int) -> bool:
    """Compare with the work of a cost: 2^c, and then 2^c + 2^(c+1) + … + 2^(cost-1), make 2^cost."""
    same = bcrypt.checkpw(password, known.encode())
    for missing in range(_cost_of(known), cost):
        bcrypt.checkpw(password, _nobody(missing).encode())
    return same


class Passwords:
    """Hashes and compares passwords off the event loop, a few at a time."""

    def __init__(self, cost: int = COST, *, threads: int = 0, waiting: int = 32) -> None:
        """Set the cost (a power of two, 4 to 31) and the bounds; 0 threads means 1, or 2 from 4 cores on."""
        threads = threads or (2 if (os.cpu_count() or 1) >= 4 else 1)
        self._cost = cost
        self._dearest = cost
        """The highest cost of any hash met; every comparison takes its work, whatever its own hash's cost."""
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._slots = threading.BoundedSemaphore(threads + waiting)
        self._waiting = waiting

    async def hash(self, password: str) -> str:
        """Hash a new password.

        Raises:
            Unavailable: too many wait already (SERVER_BUSY).
        """
        return await self._submit(lambda: hash_password(password, self._cost))

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Compare a password with a hash; with none it takes as long and never matches.

        Hashes that were made at another cost than today's take the same work as well, so that changing the
        cost does not tell who is there; but the first dearer one that a process meets takes longer than what
        it compared before.

        Raises:
            Unavailable: too many wait already (SERVER_BUSY).
        """
        known = password_hash or _nobody(self._cost)
        self._dearest = dearest = max(self._dearest, _cost_of(known))
        same = await self._submit(lambda: _compare(password.encode(), known, dearest))
        return same and password_hash is not None

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    async def _submit(self, work: Callable[[], T]) -> T:
        if not self._slots.acquire(blocking=False):
            raise Unavailable(
                "too many passwords wait to be checked",
                reason=Reason.SERVER_BUSY,
                retry_after=_SECONDS_EACH * self._waiting / self._threads / 2,
            )
        future = self._executor.submit(work)
        # Called when it ran and when it was cancelled in the queue, in either case exactly once.
        future.add_done_callback(lambda _: self._slots.release())
        return await asyncio.wrap_future(future)
