"""The collector of a serving process: seldom at work, but never so seldom that cycles pile up."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

# In a process of its own, as what is left out of collections stays left out.
_MAKE_CYCLES: Final = """
import gc
from morag_meta.server import garbage

class Cycle:
    alive = 0

    def __init__(self):
        self.itself = self
        Cycle.alive += 1

    def __del__(self):
        Cycle.alive -= 1

kept = [Cycle() for _ in range(1000)]
garbage.settle()
collections = [stage["collections"] for stage in gc.get_stats()]
most = 0
for _ in range(400_000):
    Cycle()
    most = max(most, Cycle.alive)
begun = [stage["collections"] - before for stage, before in zip(gc.get_stats(), collections)]
print(len(kept), gc.get_freeze_count() > 1000, most, *begun)
"""


def test_cycles_are_freed_in_large_batches_and_what_was_there_is_left_alone() -> None:
    """Of 400,000 cycles no more than a batch is ever alive, in a few collections, none of them a full one."""
    done = subprocess.run(
        [sys.executable, "-c", _MAKE_CYCLES], capture_output=True, text=True, timeout=60, check=True
    )
    kept, frozen, most, young, older, full = done.stdout.split()
    assert (kept, frozen, full) == ("1000", "True", "0")
    assert int(most) < 60_000
    assert 4 <= int(young) + int(older) <= 40
