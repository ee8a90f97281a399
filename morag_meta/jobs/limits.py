"""How long jobs may take: deadlines by type of document, pauses after lost leases, and when to look again.

Decisions without input or output. Every time is the database's; who acts on what is overdue is
``jobs/reaper.py``'s matter.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from morag_meta.jobs.rules import FINAL_STATES

MAX_ATTEMPTS: Final = 3
_MINUTE: Final = 60_000
SCHEDULE_TO_START_MS: Final = 24 * 60 * _MINUTE
SCHEDULE_TO_CLOSE_MS: Final = 7 * 24 * 60 * _MINUTE
FALLBACK_MS: Final = 5 * _MINUTE

_TYPES: Final[Mapping[int, str]] = {
    60: "audio mp3 wav flac m4a ogg opus aac video mp4 mkv mov avi webm mpeg",
    15: "document pdf doc docx odt rtf txt md rst tex epub ppt pptx odp xls xlsx ods csv json xml",
    5: "image png jpg jpeg gif webp tiff bmp svg",
    10: "web html htm url",
}
_OTHER_MINUTES: Final = 30
_START_TO_CLOSE_MS: Final = {
    name: minutes * _MINUTE for minutes, names in _TYPES.items() for name in names.split()
}


def start_to_close_ms(document_type: str | None) -> int:
    """Give how long an attempt may take by default, in milliseconds; types are compared in lower case."""
    return _START_TO_CLOSE_MS.get((document_type or "").lower(), _OTHER_MINUTES * _MINUTE)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause after a lost lease: doubled each time from the first up to the longest, in seconds."""

    first: float = 30.0
    longest: float = 300.0

    def pause(self, lost_leases: int, chance: float) -> dt.timedelta:
        """Give the pause after so many lost leases; ``chance``, 0 to 1, takes up to a tenth off."""
        seconds = min(self.first * 2.0 ** (lost_leases - 1), self.longest)
        return dt.timedelta(seconds=seconds * (1 - 0.1 * chance))


class Overdue(enum.Enum):
    """What is to be done about a job whose time has come."""

    FAIL = "fail"
    REQUEUE = "requeue"
    FALL_BACK = "fall back"


def due_time(row: Mapping[str, Any]) -> dt.datetime | None:
    """Give when a job is to be looked at: the first of its limits, or None once it has ended."""
    state = row["state"]
    if state in FINAL_STATES:
        return None
    if state == "PROCESSING":
        due: dt.datetime = min(row["lease_expire_time"], attempt_end(row), row["close_time"])
        return due
    due = min(_start_limit(row), row["close_time"])
    return min(due, _fallback_time(row)) if state == "WAITING_FOR_REMOTE_WORKER" else due


def judge(row: Mapping[str, Any]) -> tuple[Overdue, str] | None:
    """Say what is overdue at the row's ``clock``, and the failure that it would be; None if nothing is."""
    now, state = row["clock"], row["state"]
    if state in FINAL_STATES:
        return None
    if now >= row["close_time"]:
        return Overdue.FAIL, "TOO_LONG"
    return _judge_attempt(row, now) if state == "PROCESSING" else _judge_waiting(row, now)


def _judge_attempt(row: Mapping[str, Any], now: dt.datetime) -> tuple[Overdue, str] | None:
    if now < min(row["lease_expire_time"], attempt_end(row)):
        return None
    # What passed first counts, however late that is seen: a service that was away fails no lost attempt.
    if attempt_end(row) <= row["lease_expire_time"]:
        return Overdue.FAIL, "ATTEMPT_TOO_LONG"
    last = row["lost_leases"] + 1 >= row["max_attempts"]
    return (Overdue.FAIL if last else Overdue.REQUEUE), "LEASE_EXPIRED"


def _judge_waiting(row: Mapping[str, Any], now: dt.datetime) -> tuple[Overdue, str] | None:
    if now >= _start_limit(row):
        return Overdue.FAIL, "NOT_STARTED"
    if row["state"] == "WAITING_FOR_REMOTE_WORKER" and now >= _fallback_time(row):
        return Overdue.FALL_BACK, ""
    return None


def _start_limit(row: Mapping[str, Any]) -> dt.datetime:
    limit: dt.datetime = row["queue_time"] + _milliseconds(row["schedule_to_start_ms"])
    return limit


def attempt_end(row: Mapping[str, Any]) -> dt.datetime:
    """Give when the present attempt must have ended."""
    end: dt.datetime = row["start_time"] + _milliseconds(row["start_to_close_ms"])
    return end


def _fallback_time(row: Mapping[str, Any]) -> dt.datetime:
    time: dt.datetime = row["queue_time"] + _milliseconds(row["fallback_delay_ms"])
    return time


def _milliseconds(count: int) -> dt.timedelta:
    return dt.timedelta(milliseconds=count)
