"""Jobs and their events between rows and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from morag_meta.errors import invalid
from morag_meta.jobs.listing import Filter
from morag_meta.jobs.rules import Outcome
from morag_meta.rpc.etags import etag_of
from morag_meta.rpc.structs import json_to_struct
from morag_meta.rpc.times import to_timestamp
from moragmeta.v1 import jobs_pb2 as pb

STATES: Final = {name.removeprefix("JOB_STATE_"): number for name, number in pb.JobState.items()}
_STATE_NAMES: Final = {number: name for name, number in STATES.items()}
_EXECUTIONS: Final = {"LOCAL": pb.JOB_EXECUTION_LOCAL, "REMOTE": pb.JOB_EXECUTION_REMOTE}
_OUTCOMES: Final = {outcome: pb.ReportOutcome.Value(f"REPORT_OUTCOME_{outcome.value}") for outcome in Outcome}


def job_to_proto(row: Mapping[str, Any]) -> pb.Job:
    """Give the message of a row; columns that are null are fields that are absent."""
    job = pb.Job(
        id=row["id"],
        owner_id=row["owner_id"],
        kind=row["kind"],
        state=STATES[row["state"]],
        document_id=row["document_id"],
        document_name=row["document_name"],
        document_type=row["document_type"],
        database_id=row["database_id"],
        priority=row["priority"],
        execution=_EXECUTIONS[row["execution"]],
        attempt=row["attempt"],
        report_number=row["report_number"],
        percentage=row["percentage"],
        phase=row["phase"],
        summary=row["summary"],
        error=row["error"],
        predecessor_id=row["predecessor_id"],
        last_sequence=row["event_number"],
        create_time=to_timestamp(row["create_time"]),
        update_time=to_timestamp(row["update_time"]),
        start_time=to_timestamp(row["start_time"]),
        end_time=to_timestamp(row["end_time"]),
        etag=etag_of(row),
    )
    if row["parameters"]:
        job.parameters.CopyFrom(json_to_struct(row["parameters"]))
    result = row["result"]
    if result is not None:
        job.result.chunks = result["chunks"]
        job.result.quality = result["quality"]
        if result["metadata"]:
            job.result.metadata.CopyFrom(json_to_struct(result["metadata"]))
    return job


def event_to_proto(row: Mapping[str, Any]) -> pb.JobEvent:
    """Give the message of an event's row."""
    previous = row["previous_state"]
    return pb.JobEvent(
        job_id=row["job_id"],
        sequence=row["number"],
        owner_id=row["owner_id"],
        previous_state=pb.JOB_STATE_UNSPECIFIED if previous is None else STATES[previous],
        state=STATES[row["state"]],
        attempt=row["attempt"],
        previous_percentage=row["previous_percentage"],
        percentage=row["percentage"],
        phase=row["phase"],
        summary=row["summary"],
        error=row["error"],
        kind=row["kind"],
        document_id=row["document_id"],
        document_type=row["document_type"],
        database_id=row["database_id"],
        create_time=to_timestamp(row["create_time"]),
    )


def filter_from_proto(message: pb.JobFilter, owner_id: str) -> Filter:
    """Give the filter that a message says, for the owner that the caller may see.

    Raises:
        Invalid: it names a state that is none.
    """
    return Filter(
        owner_id=owner_id,
        database_id=message.database_id,
        document_id=message.document_id,
        kinds=tuple(dict.fromkeys(message.kinds)),
        document_types=tuple(dict.fromkeys(message.document_types)),
        states=tuple(dict.fromkeys(_state(state, place) for place, state in enumerate(message.states))),
    )


def _state(number: pb.JobState.ValueType, place: int) -> str:
    if number == pb.JOB_STATE_UNSPECIFIED:
        raise invalid(f"filter.states[{place}]", "must be a state")
    return _STATE_NAMES[number]


def outcome_to_proto(outcome: Outcome) -> pb.ReportOutcome.ValueType:
    """Give the message's value of an outcome."""
    return _OUTCOMES[outcome]
