"""What is done with the lease of one job, with what follows for its document, in one unit of work.

Jobs come here locked, and behind their documents, in the house's order. Who may lease which job, and how
the next one is found, is ``morag_meta/workers``' matter; what is overdue is decided in ``limits.py``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid

from morag_meta.db.unit import Row
from morag_meta.errors import NotFound, WrongState, wrong_state
from morag_meta.jobs import rules
from morag_meta.jobs.limits import attempt_end
from morag_meta.jobs.rules import FINAL_STATES, INGESTION, WAITING, Holder, Verb
from morag_meta.uow import UnitOfWork

LEASE_MS = 90_000


def lease(uow: UnitOfWork, row: Row, *, worker_id: str | None, lease_ms: int = LEASE_MS) -> Row:
    """Begin the next attempt of a locked job; its document is being ingested from now on.

    Raises:
        WrongState: it runs already, or has ended, or would have to; or its document cannot be ingested.
    """
    state = rules.after(row["state"], Verb.START)
    if row["clock"] >= row["close_time"]:
        raise wrong_state("job", row["state"], "the job's time is over")
    if row["kind"] == INGESTION:
        uow.documents.start_ingestion(row["owner_id"], row["document_id"])
    now = row["clock"]
    begun = {**row, "start_time": now, "lease_ms": lease_ms}
    return uow.jobs.change(
        row,
        **renewal(begun),
        state=state,
        attempt=row["attempt"] + 1,
        report_number=0,
        percentage=0,
        start_time=now,
        not_before=None,
        worker_id=worker_id,
        lease_token=str(uuid.uuid4()),
        lease_ms=lease_ms,
    )


def renewal(row: Row) -> dict[str, dt.datetime]:
    """Give what lets the lease of a locked job live on from now, but not beyond the time of the attempt.

    It never ends earlier than it did, although the clock may have been asked before another renewal ended.
    """
    wanted = row["clock"] + dt.timedelta(milliseconds=row["lease_ms"])
    longest = max(wanted, row["lease_expire_time"] or wanted)
    return {"lease_expire_time": min(longest, attempt_end(row), row["close_time"])}


def is_held(row: Row, holder: Holder) -> bool:
    """Whether the lease of a locked job lives, and is the holder's."""
    return row["state"] == "PROCESSING" and row["clock"] < row["lease_expire_time"] and holder.shows(row)


def release(uow: UnitOfWork, row: Row, holder: Holder, *, reason: str = "") -> Row:
    """Take a locked job back from its holder: it waits again, and the attempt does not count.

    Raises:
        WrongState: LEASE_LOST or JOB_ENDED.
    """
    if row["state"] in FINAL_STATES:
        raise rules.ended(row["state"])
    if not is_held(row, holder):
        raise rules.lease_lost(row, row["attempt"])
    return requeue(uow, row, not_before=None, lost_leases=row["lost_leases"], summary=reason)


def requeue(
    uow: UnitOfWork, row: Row, *, not_before: dt.datetime | None, lost_leases: int, summary: str = ""
) -> Row:
    """Have a locked job that runs wait for its next attempt; its document is what it was before."""
    _abandon_ingestion(uow, row, None)
    return uow.jobs.change(
        row,
        state=WAITING[row["execution"]],
        summary=summary or row["summary"],
        lost_leases=lost_leases,
        not_before=not_before,
        queue_time=not_before or row["clock"],
        worker_id=None,
        lease_token=None,
        lease_ms=None,
        lease_expire_time=None,
    )


def fall_back(uow: UnitOfWork, row: Row) -> Row:
    """Leave a locked job that waits for a remote worker to local ones, from now on for good."""
    state = rules.after(row["state"], Verb.FALL_BACK)
    return uow.jobs.change(row, state=state, execution="LOCAL")


def time_out(uow: UnitOfWork, row: Row, failure: str, error: str) -> Row:
    """Fail a locked job that took too long, or whose leases were lost; its document is what it was before."""
    if row["state"] == "PROCESSING":
        _abandon_ingestion(uow, row, error)
    lost = row["lost_leases"] + (failure == "LEASE_EXPIRED")
    return uow.jobs.end(row, Verb.TIME_OUT, failure=failure, error=error, lost_leases=lost)


def _abandon_ingestion(uow: UnitOfWork, row: Row, error: str | None) -> None:
    """Have the document be what it was before; whatever became of it, the job's end does not wait for it."""
    if row["kind"] == INGESTION:
        with contextlib.suppress(NotFound, WrongState):
            uow.documents.abandon_ingestion(row["owner_id"], row["document_id"], error=error)
