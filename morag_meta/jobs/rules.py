"""What may happen to a job: decisions without input or output.

The transition table is data; who reports what, and what a report means, is decided here as well. Rows
come from ``jobs/store.py``, and what a decision changes is written there.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from morag_meta.errors import MetaError, Reason, WrongState, wrong_state

INGESTION: Final = "INGESTION"
FINAL_STATES: Final = frozenset({"FINISHED", "FAILED", "CANCELLED"})


class Verb(enum.Enum):
    """What is done to a job."""

    START = "started"
    COMPLETE = "completed"
    FAIL = "failed"
    CANCEL = "cancelled"
    FALL_BACK = "left to local workers"
    TIME_OUT = "timed out"


TRANSITIONS: Final[Mapping[tuple[str, Verb], str]] = {
    ("PENDING", Verb.START): "PROCESSING",
    ("WAITING_FOR_REMOTE_WORKER", Verb.START): "PROCESSING",
    ("PROCESSING", Verb.COMPLETE): "FINISHED",
    ("PROCESSING", Verb.FAIL): "FAILED",
    ("PENDING", Verb.CANCEL): "CANCELLED",
    ("WAITING_FOR_REMOTE_WORKER", Verb.CANCEL): "CANCELLED",
    ("PROCESSING", Verb.CANCEL): "CANCELLED",
    ("WAITING_FOR_REMOTE_WORKER", Verb.FALL_BACK): "PENDING",
    ("PENDING", Verb.TIME_OUT): "FAILED",
    ("WAITING_FOR_REMOTE_WORKER", Verb.TIME_OUT): "FAILED",
    ("PROCESSING", Verb.TIME_OUT): "FAILED",
}
WAITING: Final[Mapping[str, str]] = {"LOCAL": "PENDING", "REMOTE": "WAITING_FOR_REMOTE_WORKER"}
"""The state in which a job waits to be leased, by its execution."""


def after(state: str, verb: Verb) -> str:
    """Give the state that follows.

    Raises:
        WrongState: the table has no such transition (JOB_ENDED for a final state, else INVALID_STATE).
    """
    following = TRANSITIONS.get((state, verb))
    if following is None:
        raise (
            ended(state)
            if state in FINAL_STATES
            else wrong_state("job", state, f"a {state} job cannot be {verb.value}")
        )
    return following


def ended(state: str) -> MetaError:
    """Say that the job is over."""
    return WrongState(f"the job has ended: {state}", reason=Reason.JOB_ENDED, metadata={"state": state})


def lease_lost(row: Mapping[str, Any], attempt: int) -> MetaError:
    """Say that the lease of an attempt is over, or another's."""
    return WrongState(
        "the lease has expired, was given back, or is another's",
        reason=Reason.LEASE_LOST,
        metadata={"attempt": str(attempt), "current_attempt": str(row["attempt"])},
    )


class Outcome(enum.Enum):
    """What a report does."""

    APPLIED = "APPLIED"
    REPEATED = "REPEATED"
    IGNORED = "IGNORED"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who says to hold a lease: the token, and whether it must be shown whatever the lease."""

    token: str = ""
    must_show: bool = False

    def shows(self, row: Mapping[str, Any]) -> bool:
        """Whether the token is that of the job's lease, or rightly left out."""
        if not self.token:
            return not (self.must_show or row["worker_id"])
        held: str | None = row["lease_token"]
        return held is not None and hmac.compare_digest(self.token.encode(), held.encode())


NOBODY: Final = Holder()
"""Who shows no token."""


def judge_report(
    row: Mapping[str, Any], verb: Verb | None, attempt: int, number: int, holder: Holder
) -> Outcome:
    """Decide what a report does at the row's ``clock``; ``verb`` is None for progress.

    A report of the newest number is a repetition if it would lead to where the job is; so it is success
    even after the job ended, as a worker that lost the answer must see it.

    Raises:
        WrongState: STALE_ATTEMPT, LEASE_LOST, JOB_ENDED, INVALID_STATE (not started) or REPORT_NUMBER_USED.
    """
    state = row["state"]
    if state not in FINAL_STATES and state != "PROCESSING":
        if row["attempt"]:
            raise lease_lost(row, attempt)
        raise wrong_state("job", state, f"a {state} job takes no reports; start it first")
    if attempt != row["attempt"]:
        raise WrongState(
            f"the job is in attempt {row['attempt']}, not {attempt}",
            reason=Reason.STALE_ATTEMPT,
            metadata={"attempt": str(attempt), "current_attempt": str(row["attempt"])},
        )
    if not holder.shows(row):
        raise lease_lost(row, attempt)
    if state in FINAL_STATES:
        return _judge_late(row, verb, number)
    if row["clock"] >= row["lease_expire_time"]:
        raise lease_lost(row, attempt)
    if number > row["report_number"]:
        return Outcome.APPLIED
    if number < row["report_number"]:
        return Outcome.IGNORED
    if verb is None:
        return Outcome.REPEATED
    raise WrongState(
        "the report number was used for progress; count on",
        reason=Reason.REPORT_NUMBER_USED,
        metadata={"report_number": str(number)},
    )


def _judge_late(row: Mapping[str, Any], verb: Verb | None, number: int) -> Outcome:
    """Judge a report of a job that has ended."""
    if row["state"] == "CANCELLED":
        raise ended(row["state"])
    if number < row["report_number"]:
        return Outcome.IGNORED
    reported = row["failure"] in (None, "REPORTED")
    same_end = reported and verb is not None and TRANSITIONS[("PROCESSING", verb)] == row["state"]
    if number == row["report_number"] and same_end:
        return Outcome.REPEATED
    raise ended(row["state"])


def check_retry(state: str) -> None:
    """Refuse to repeat a job that is open or went well.

    Raises:
        WrongState: INVALID_STATE.
    """
    if state not in ("FAILED", "CANCELLED"):
        raise wrong_state("job", state, f"a {state} job is not repeated; only FAILED or CANCELLED ones are")
