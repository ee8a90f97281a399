"""The rows that are written for a job: that of a new one, and the event that tells of a change.

Pure: what is written when, and under which lock, stands in ``store.py``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from morag_meta.db.unit import Row
from morag_meta.ids import new_id
from morag_meta.jobs.limits import MAX_ATTEMPTS, SCHEDULE_TO_CLOSE_MS, SCHEDULE_TO_START_MS, due_time
from morag_meta.jobs.rules import INGESTION, WAITING

MOST_URGENT: Final = 4
_NO_LEASE: Final[Mapping[str, None]] = dict.fromkeys(
    ("worker_id", "lease_token", "lease_ms", "lease_expire_time")
)
_TOLD: Final = (
    *("owner_id", "state", "attempt", "percentage", "phase", "summary", "error"),
    *("kind", "document_id", "document_type", "database_id", "worker_id", "failure"),
)
"""What an event tells of the job after the change."""


def new_job(owner_id: str, state: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give the row of a new job; columns that are not given have their defaults.

    ``clock``, ``kind``, ``priority`` and ``start_to_close_ms`` must be given.
    """
    row = {
        "id": new_id(),
        "owner_id": owner_id,
        "state": state,
        "document_id": None,
        "open_document_id": fields.get("document_id") if fields["kind"] == INGESTION else None,
        "document_name": None,
        "document_type": None,
        "database_id": None,
        "attempt": 0,
        "report_number": 0,
        "percentage": 0,
        "phase": "",
        "summary": "",
        "error": None,
        "result": None,
        "predecessor_id": None,
        "event_number": 1,
        "not_before": None,
        "max_attempts": MAX_ATTEMPTS,
        "lost_leases": 0,
        "schedule_to_start_ms": SCHEDULE_TO_START_MS,
        "schedule_to_close_ms": SCHEDULE_TO_CLOSE_MS,
        "fallback_delay_ms": None,
        **_NO_LEASE,
        "failure": None,
        "start_time": None,
        "end_time": None,
        "run_ms": None,
        "revision": 1,
        **fields,
    }
    now = row.pop("clock")
    begin = max(now, row["not_before"] or now)
    close = begin + dt.timedelta(milliseconds=row["schedule_to_close_ms"])
    row |= {"create_time": now, "update_time": now, "close_time": close}
    row |= {"ready_time": begin, "queue_time": begin}
    row |= {"queue": queue_of(row), "due_time": due_time(row)}
    return row


def queue_of(row: Mapping[str, Any]) -> str | None:
    """Name the queue in which a job waits, or None where it does not.

    Its urgency, 0 the most, the first letter of its state, and its owner: so queues sort by urgency.
    """
    if row["state"] not in WAITING.values():
        return None
    return f"{MOST_URGENT - row['priority']}{row['state'][0]}{row['owner_id']}"


def event_of(before: Row | None, row: Row) -> dict[str, Any]:
    """Give the event that tells how a job changed; ``before`` is None for a new one."""
    return {
        "job_id": row["id"],
        "number": row["event_number"],
        "previous_state": None if before is None else before["state"],
        "previous_percentage": None if before is None else before["percentage"],
        "previous_worker_id": None if before is None else before["worker_id"],
        "position": None,
        "create_time": row["update_time"],
        **{column: row[column] for column in _TOLD},
    }
