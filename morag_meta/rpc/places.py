"""How many calls of a user may wait in this process at once: open streams, and polls for jobs.

What waits there, and how, is the matter of ``streams.py`` and of ``workers/openings.py``.
"""

from __future__ import annotations

from collections import Counter

from morag_meta.errors import Exhausted, Reason


class Places:
    """The places of each user; for the event loop's thread."""

    def __init__(self, limit: int) -> None:
        """Have so many for each user."""
        self._limit = limit
        self._taken: Counter[str] = Counter()

    def taken(self, user_id: str) -> int:
        """Count the places that a user has taken."""
        return self._taken.get(user_id, 0)

    def take(self, user_id: str, *, retry_after: float | None = None) -> None:
        """Take a place of a user; give it back with ``leave``.

        ``retry_after`` is in seconds, for a caller to whom trying again helps without any doing of its own.

        Raises:
            Exhausted: all are taken (TOO_MANY_STREAMS).
        """
        if self.taken(user_id) >= self._limit:
            raise Exhausted(
                f"the user has {self._limit} open streams and waiting calls here already",
                reason=Reason.TOO_MANY_STREAMS,
                metadata={"limit": str(self._limit)},
                retry_after=retry_after,
            )
        self._taken[user_id] += 1

    def leave(self, user_id: str) -> None:
        """Give a place back."""
        self._taken[user_id] -= 1
        if not self._taken[user_id]:
            del self._taken[user_id]
