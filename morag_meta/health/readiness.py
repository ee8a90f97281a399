"""When a process counts as ready: from good and bad probes to one steady answer. Pure.

* One bad probe ends readiness at once: a caller must not be sent to a database that is away.
* Two good ones in a row bring it back, and not before ``STEADY_SECONDS`` have passed since the last good
  probe of the time before. So SERVING is never left and given again within that time: a database that
  comes and goes does not make balancers flap, while one that was away for longer is used again at once.
* The very first good probe counts: a process that starts has nothing to be steady about.
"""

from __future__ import annotations

STEADY_SECONDS = 10.0
GOOD_IN_A_ROW = 2


class Readiness:
    """The steady answer; times are monotonic seconds and given by the caller."""

    def __init__(self) -> None:
        """Begin as not ready, because nothing is known."""
        self.ready = False
        self._good = 0
        self._last_good: float | None = None
        self._not_before = float("-inf")

    def note(self, now: float, *, good: bool) -> bool:
        """Take one probe's outcome, and return whether the answer changed."""
        if not good:
            return self._note_bad()
        self._good += 1
        first = self._last_good is None
        if self.ready or first:
            self._last_good = now
        if self.ready or (not first and (self._good < GOOD_IN_A_ROW or now < self._not_before)):
            return False
        self._last_good = now
        self.ready = True
        return True

    def _note_bad(self) -> bool:
        self._good = 0
        if not self.ready:
            return False
        self._not_before = (self._last_good or 0.0) + STEADY_SECONDS
        self.ready = False
        return True
