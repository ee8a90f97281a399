"""What is done about one job whose time has come, in one unit of work.

Whether a time has come is decided in ``limits.py``, on a locked row and by the database's clock; how a lease
ends stands in ``leases.py``; who looks for such jobs, and how often, in ``server/reaper.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.errors import NotFound
from morag_meta.jobs import leases
from morag_meta.jobs.limits import Backoff, Overdue, due_time, judge
from morag_meta.jobs.rules import INGESTION
from morag_meta.uow import UnitOfWork


def handle(uow: UnitOfWork, job_id: str, backoff: Backoff, chance: float) -> str | None:
    """Do what is overdue with a job, and say what it was; None where there was nothing, or no lock.

    It waits for nobody: whoever holds the job or its document changes it, or leaves it to the next look.
    ``chance``, 0 to 1, shortens the pause after a lost lease.
    """
    row = _lock_if_free(uow, job_id)
    if row is None:
        return None
    overdue = judge(row)
    if overdue is None:
        if row["due_time"] != due_time(row):
            uow.jobs.correct_due_time(row)
        return None
    what, failure = overdue
    match what:
        case Overdue.FALL_BACK:
            leases.fall_back(uow, row)
        case Overdue.REQUEUE:
            _requeue(uow, row, backoff, chance)
        case Overdue.FAIL:
            leases.time_out(uow, row, failure, _ERRORS[failure].format(**_told(row)))
    return failure or what.value


def _lock_if_free(uow: UnitOfWork, job_id: str) -> Row | None:
    """Lock a job, and before it the document that it carries along while it runs; None if one is not free."""
    try:
        seen = uow.jobs.get(EVERYONE, job_id)
    except NotFound:
        return None
    if seen["kind"] == INGESTION and seen["state"] == "PROCESSING":
        owner_id, document_id = seen["owner_id"], seen["document_id"]
        free = uow.documents.lock_if_free(owner_id, document_id)
        if free is None and uow.documents.find_many(owner_id, [document_id]):
            return None
    row = uow.jobs.lock_if_free(EVERYONE, job_id)
    # What was leased meanwhile carries a document along that is not locked.
    return row if row is not None and row["state"] == seen["state"] else None


def _requeue(uow: UnitOfWork, row: Row, backoff: Backoff, chance: float) -> None:
    lost = row["lost_leases"] + 1
    pause = backoff.pause(lost, chance)
    summary = (
        f"the lease of attempt {row['attempt']} expired ({lost} of {row['max_attempts']});"
        f" the next attempt may begin in {pause.total_seconds():.3g} s"
    )
    leases.requeue(uow, row, not_before=row["clock"] + pause, lost_leases=lost, summary=summary)


def _told(row: Row) -> dict[str, Any]:
    limits = ("schedule_to_start_ms", "start_to_close_ms", "schedule_to_close_ms")
    seconds = {name.removesuffix("_ms"): f"{row[name] / 1000:g} s" for name in limits}
    return {"lost": row["lost_leases"] + 1, "attempt": row["attempt"], **seconds}


_ERRORS: Final[Mapping[str, str]] = {
    "LEASE_EXPIRED": "the leases of {lost} attempts expired: their workers neither reported nor renewed them",
    "NOT_STARTED": "no worker began within {schedule_to_start} (schedule_to_start)",
    "ATTEMPT_TOO_LONG": "attempt {attempt} did not end within {start_to_close} (start_to_close)",
    "TOO_LONG": "it did not end within {schedule_to_close}, all attempts included (schedule_to_close)",
}
"""What people are told of a failure that the service finds."""
