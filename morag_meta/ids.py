"""Identifiers: UUIDv7 (RFC 9562, section 5.7), which sort by the time they were made.

Python 3.11 has none of its own. Ours never goes back within a process, also when the clock steps back:
the 12 bits after the milliseconds count on from the last id. Order of rows never rests on ids alone,
but on (create_time, id).
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid

_COUNTER_LIMIT = 1 << 12
_lock = threading.Lock()
_last_millisecond = 0
_counter = 0


def new_id() -> str:
    """Make a new UUIDv7 in its canonical 36 characters, greater than any made before in this process."""
    global _last_millisecond, _counter  # noqa: PLW0603 - the monotone state is the process's own
    now = time.time_ns() // 1_000_000
    with _lock:
        if now > _last_millisecond:
            _last_millisecond, _counter = now, secrets.randbelow(_COUNTER_LIMIT // 2)
        elif _counter + 1 < _COUNTER_LIMIT:
            _counter += 1
        else:
            _last_millisecond, _counter = _last_millisecond + 1, 0
        millisecond, counter = _last_millisecond, _counter
    value = (millisecond & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | counter << 64
    value |= 0x2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))
