"""How a serving process collects garbage: rarely, and never through what lives as long as it does.

Python's collector goes through every object that has grown old, which with thousands of open streams
stops all calls for a tenth of a second; and it begins after each few hundred new objects, while a change
to a thousand streams alone makes ten thousand that end by themselves. Reference counts free nearly all of
what the service makes, so cycles may wait.
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 50)
"""How many more objects than before make a young collection, and how many of each a next older one."""


def settle() -> None:
    """Leave what was made so far out of every collection, and collect seldom; for a process that serves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
