"""Jobs and their events between rows and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from morag_meta.auth.narrowing import Reach
from morag_meta.errors import invalid
from morag_meta.jobs.actions import Plan
from morag_meta.jobs.limits import MAX_ATTEMPTS, SCHEDULE_TO_CLOSE_MS, SCHEDULE_TO_START_MS
from morag_meta.jobs.listing import Filter
from morag_meta.jobs.rules import Outcome
from morag_meta.rpc.etags import etag_of
from morag_meta.rpc.structs import json_to_struct
from morag_meta.rpc.times import from_duration, from_timestamp, to_duration, to_timestamp
from moragmeta.v1 import jobs_pb2 as pb

STATES: Final = {name.removeprefix("JOB_STATE_"): number for name, number in pb.JobState.items()}
_STATE_NAMES: Final = {number: name for name, number in STATES.items()}
_EXECUTIONS: Final = {"LOCAL": pb.JOB_EXECUTION_LOCAL, "REMOTE": pb.JOB_EXECUTION_REMOTE}
_OUTCOMES: Final = {outcome: pb.ReportOutcome.Value(f"REPORT_OUTCOME_{outcome.value}") for outcome in Outcome}
_DAY: Final = 86_400


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
        not_before=to_timestamp(row["not_before"]),
        max_attempts=row["max_attempts"],
        deadlines=_deadlines(row),
        fallback_delay=to_duration(row["fallback_delay_ms"]),
        failure=_failure(row),
        lost_leases=row["lost_leases"],
        worker_id=row["worker_id"],
        lease_expire_time=to_timestamp(row["lease_expire_time"]),
    )
    if row["parameters"]:
        job.parameters.CopyFrom(json_to_struct(row["parameters"]))
    if row["result"] is not None:
        _write_result(job.result, row["result"])
    return job


def _deadlines(row: Mapping[str, Any]) -> pb.JobDeadlines:
    return pb.JobDeadlines(
        schedule_to_start=to_duration(row["schedule_to_start_ms"]),
        start_to_close=to_duration(row["start_to_close_ms"]),
        schedule_to_close=to_duration(row["schedule_to_close_ms"]),
    )


def _write_result(target: pb.JobResult, result: Mapping[str, Any]) -> None:
    target.chunks = result["chunks"]
    target.quality = result["quality"]
    if result["metadata"]:
        target.metadata.CopyFrom(json_to_struct(result["metadata"]))


def started_to_proto(row: Mapping[str, Any]) -> pb.Job:
    """Give the message of a job for who leased it by StartJob, with the token that proves it."""
    job = job_to_proto(row)
    if row["state"] == "PROCESSING" and row["worker_id"] is None:
        job.lease_token = row["lease_token"]
    return job


def _failure(row: Mapping[str, Any]) -> pb.JobFailure.ValueType:
    return pb.JobFailure.Value(f"JOB_FAILURE_{row['failure'] or 'UNSPECIFIED'}")


def plan_from_proto(job: pb.Job, fallback_ms: int) -> Plan:
    """Give when and how long a new job may run.

    Raises:
        Invalid: a time is out of its range.
    """
    not_before = from_timestamp(job.not_before) if job.HasField("not_before") else None
    path, given = "job.deadlines.", job.deadlines
    start = from_duration(given, "schedule_to_start", path=path, least=1, most=30 * _DAY)
    attempt = from_duration(given, "start_to_close", path=path, least=1, most=7 * _DAY)
    whole = from_duration(given, "schedule_to_close", path=path, least=1, most=30 * _DAY)
    fallback = from_duration(job, "fallback_delay", path="job.", least=1, most=7 * _DAY)
    return Plan(
        not_before=not_before,
        max_attempts=job.max_attempts or MAX_ATTEMPTS,
        schedule_to_start_ms=SCHEDULE_TO_START_MS if start is None else start,
        start_to_close_ms=attempt,
        schedule_to_close_ms=SCHEDULE_TO_CLOSE_MS if whole is None else whole,
        fallback_delay_ms=fallback_ms if fallback is None else fallback,
    )


def lease_ms_of(request: Any, default: int) -> int:
    """Give how long a lease that is asked for lives, in milliseconds.

    Raises:
        Invalid: it is out of its range.
    """
    given = from_duration(request, "lease_duration", path="", least=1, most=3600)
    return default if given is None else given


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
        previous_worker_id=row["previous_worker_id"],
        worker_id=row["worker_id"],
        failure=_failure(row),
    )


def filter_from_proto(message: pb.JobFilter, reach: Reach) -> Filter:
    """Give the filter that a message says, of what the caller may see.

    Raises:
        Invalid: it names a state that is none.
    """
    return Filter(
        owner_id=reach.owner_id,
        narrowing=reach.narrowing,
        database_id=message.database_id,
        document_id=message.document_id,
        kinds=tuple(dict.fromkeys(message.kinds)),
        document_types=tuple(dict.fromkeys(message.document_types)),
        states=tuple(dict.fromkeys(_state(state, place) for place, state in enumerate(message.states))),
        worker_ids=tuple(dict.fromkeys(message.worker_ids)),
    )


def _state(number: pb.JobState.ValueType, place: int) -> str:
    if number == pb.JOB_STATE_UNSPECIFIED:
        raise invalid(f"filter.states[{place}]", "must be a state")
    return _STATE_NAMES[number]


def outcome_to_proto(outcome: Outcome) -> pb.ReportOutcome.ValueType:
    """Give the message's value of an outcome."""
    return _OUTCOMES[outcome]
