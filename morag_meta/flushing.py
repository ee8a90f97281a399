"""When what is kept in memory for a while is written: at intervals, and once more at the end.

What is written, and what happens to it when that fails, is the matter of whoever keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


async def flush_until(stop: asyncio.Event, interval: float, flush: Callable[[], Awaitable[None]]) -> None:
    """Flush every ``interval`` seconds until ``stop`` is set, and then for what came during the last time."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), interval)
        await flush()
    await flush()
