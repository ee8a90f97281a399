"""Where clients write down what they do, from any thread; and how messages and rows become records."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from moragmeta.v1 import jobs_pb2 as pb
from tests.robustness.history import DocumentRow, Event, JobRow, Record, to_line


class Recorder:
    """Keeps records in memory, or in a file that a killed process leaves behind whole but for a last line."""

    def __init__(self, path: Path | None = None) -> None:
        """Keep records in a file if one is given."""
        self.records: list[Record] = []
        self._events: dict[bytes, Event] = {}
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if path else None

    def add(self, record: Record) -> None:
        """Write down a record: a thread's record is never within another's."""
        if self._file is None:
            self.records.append(record)
        else:
            os.write(self._file, to_line(record).encode() + b"\n")

    def event(self, message: pb.JobEvent) -> Event:
        """Make a record of the event of a frame: the same one for all who were told the same."""
        told = message.SerializeToString()
        known = self._events.get(told)
        if known is None:
            known = self._events[told] = event_of(message)
        return known


def seconds(time: Timestamp) -> float:
    """Give a time as seconds since 1970, exact to the microsecond, and alike for messages and rows."""
    return (time.seconds * 1_000_000 + time.nanos // 1000) / 1_000_000


def _seconds_of_row(time: dt.datetime) -> float:
    return ((time - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)) / 1_000_000


def state_name(state: Any) -> str:
    """Give a state as the tables have it; empty for none."""
    return str(pb.JobState.Name(state)).removeprefix("JOB_STATE_") if state else ""


def _failure_name(failure: Any) -> str:
    return str(pb.JobFailure.Name(failure)).removeprefix("JOB_FAILURE_") if failure else ""


def event_of(message: pb.JobEvent) -> Event:
    """Make a record of the event of a frame."""
    return Event(
        job_id=message.job_id,
        number=message.sequence,
        owner_id=message.owner_id,
        previous_state=state_name(message.previous_state),
        state=state_name(message.state),
        attempt=message.attempt,
        previous_percentage=message.previous_percentage,
        percentage=message.percentage,
        kind=message.kind,
        document_id=message.document_id,
        document_type=message.document_type,
        previous_worker_id=message.previous_worker_id,
        worker_id=message.worker_id,
        failure=_failure_name(message.failure),
        create_time=seconds(message.create_time),
    )


def job_of(message: pb.Job) -> JobRow:
    """Make a record of the job of a snapshot."""
    return JobRow(
        id=message.id,
        owner_id=message.owner_id,
        kind=message.kind,
        state=state_name(message.state),
        document_id=message.document_id,
        document_type=message.document_type,
        attempt=message.attempt,
        percentage=message.percentage,
        last_sequence=message.last_sequence,
        worker_id=message.worker_id,
        failure=_failure_name(message.failure),
        lost_leases=message.lost_leases,
        max_attempts=message.max_attempts,
    )


def event_of_row(row: Mapping[str, Any]) -> Event:
    """Make a record of an event as its table has it."""
    return Event(
        job_id=row["job_id"],
        number=row["number"],
        owner_id=row["owner_id"],
        previous_state=row["previous_state"] or "",
        state=row["state"],
        attempt=row["attempt"],
        previous_percentage=row["previous_percentage"] or 0,
        percentage=row["percentage"],
        kind=row["kind"],
        document_id=row["document_id"] or "",
        document_type=row["document_type"] or "",
        previous_worker_id=row["previous_worker_id"] or "",
        worker_id=row["worker_id"] or "",
        failure=row["failure"] or "",
        create_time=_seconds_of_row(row["create_time"]),
        position=row["position"] or 0,
    )


def job_of_row(row: Mapping[str, Any]) -> JobRow:
    """Make a record of a job as its table has it."""
    return JobRow(
        id=row["id"],
        owner_id=row["owner_id"],
        kind=row["kind"],
        state=row["state"],
        document_id=row["document_id"] or "",
        document_type=row["document_type"] or "",
        attempt=row["attempt"],
        percentage=row["percentage"],
        last_sequence=row["event_number"],
        worker_id=row["worker_id"] or "",
        failure=row["failure"] or "",
        lost_leases=row["lost_leases"],
        max_attempts=row["max_attempts"],
        tag="" if row["predecessor_id"] else str(row["parameters"].get("tag", "")),
    )


def document_of_row(row: Mapping[str, Any]) -> DocumentRow:
    """Make a record of a document as its table has it."""
    return DocumentRow(row["id"], row["owner_id"], row["state"])
