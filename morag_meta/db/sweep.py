"""Removing one batch of what is kept for a time and is over, by the database's clock.

What is swept, and by which statements, stands in the stores; when, in ``server/sweeper.py``.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

from morag_meta.db.clock import read_clock
from morag_meta.db.unit import Unit


def sweep(
    unit: Unit, end: sa.Select[Any], removal: sa.Delete, limit: int, kept: dt.timedelta = dt.timedelta()
) -> int:
    """Remove the oldest ``limit`` rows, or some more of the same time, that are over for as long as ``kept``.

    ``end`` is an ``end_of_batch`` and ``removal`` deletes up to the ``:last`` time that it finds. Gives the
    number of rows; once that is less than ``limit``, none is left.
    """
    found = unit.one(end, before=read_clock(unit) - kept, limit=limit)
    if found is None or found["last"] is None:
        return 0
    return unit.run(removal, last=found["last"])
