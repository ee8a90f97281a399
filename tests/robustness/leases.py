"""What is promised to workers and to those who make jobs, as functions from a history to what breaks it."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from tests.robustness.case import Case
from tests.robustness.history import FINAL, Event, History, JobRow, Operation, Record
from tests.robustness.violations import Violation

WAITING = ("PENDING", "WAITING_FOR_REMOTE_WORKER")
_ENDS = {"CompleteJob": "FINISHED", "FailJob": "FAILED", "CancelJob": "CANCELLED"}
_TRANSIENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "ABORTED", "RESOURCE_EXHAUSTED")
_EXPLAINED = ("OK", "FAILED_PRECONDITION", "ALREADY_EXISTS", *_TRANSIENT)
_ENDS_OF_STREAMS = ("OK", "OUT_OF_RANGE", *_TRANSIENT)
_CLOCK = 0.002
"""Seconds by which two readings of a database's clock may seem to differ: SQLite's has milliseconds."""


def single_holder(case: Case) -> list[Violation]:
    """A lease has one token and one worker, is not given on while it lives, and is of no use afterwards."""
    history = case.history
    found = []
    grants: dict[tuple[str, int], Operation] = {}
    alive: dict[tuple[str, int], tuple[float, Operation]] = {}
    for operation in _answered(history):
        for lease in operation.answer.get("leases", []):
            key = (lease["job_id"], lease["attempt"])
            first = grants.setdefault(key, operation)
            other = next(had for had in first.answer["leases"] if _key(had) == key)
            if other["token"] != lease["token"]:
                text = f"two tokens were given for attempt {key[1]} of {key[0]}"
                found.append(Violation("SingleHolder", text, (first, operation)))
            _live(alive, key, lease["expire_time"], operation)
        if operation.method == "HeartbeatJob" and operation.answer.get("verdict") == "GO_ON":
            request = operation.request
            _live(alive, (request["job_id"], request["attempt"]), operation.answer["expire_time"], operation)
    return found + _given_on(history, alive) + _used_after(history, grants) + _too_late(history, grants)


def _key(lease: dict[str, object]) -> tuple[object, object]:
    return lease["job_id"], lease["attempt"]


def _live(
    alive: dict[tuple[str, int], tuple[float, Operation]],
    key: tuple[str, int],
    until: float,
    operation: Operation,
) -> None:
    if key not in alive or until > alive[key][0]:
        alive[key] = (until, operation)


def _given_on(history: History, alive: dict[tuple[str, int], tuple[float, Operation]]) -> list[Violation]:
    """Find jobs that were taken from their holder before the time that the holder had been told."""
    released = {
        (operation.request["job_id"], operation.request["attempt"])
        for operation in history.operations
        if operation.method == "ReleaseJob"  # also those of whose end nothing is known
    }
    found = []
    for event in history.events:
        key = (event.job_id, event.attempt)
        taken = event.previous_state == "PROCESSING" and event.state in WAITING
        if taken and key in alive and key not in released and event.create_time < alive[key][0] - _CLOCK:
            text = f"the lease of {key} was taken before its time"
            found.append(Violation("SingleHolder", text, (alive[key][1], event)))
    return found


def _used_after(history: History, grants: dict[tuple[str, int], Operation]) -> list[Violation]:
    """Find reports that were taken although the next attempt was somebody's already."""
    found = []
    for operation in _answered(history):
        if operation.answer.get("outcome") != "APPLIED" and operation.answer.get("verdict") != "GO_ON":
            continue
        key = (operation.request["job_id"], operation.request["attempt"] + 1)
        later = grants.get(key)
        if later is not None and operation.start > later.end:
            text = f"a report of attempt {key[1] - 1} was taken after the next one began"
            found.append(Violation("SingleHolder", text, (later, operation)))
    return found


def _too_late(history: History, grants: dict[tuple[str, int], Operation]) -> list[Violation]:
    """Find reports that were taken although the lease had ended, and nothing had renewed it."""
    renewals: dict[tuple[str, int], list[float]] = defaultdict(list)
    for operation in _answered(history):
        if operation.method == "HeartbeatJob" and operation.answer.get("verdict") == "GO_ON":
            key = (operation.request["job_id"], operation.request["attempt"])
            renewals[key].append(operation.answer["expire_time"])
    found = []
    ends: dict[tuple[str, int], float] = {}
    for event in sorted(history.events, key=lambda event: (event.job_id, event.number)):
        key = (event.job_id, event.attempt)
        reported = event.state in ("PROCESSING", "FINISHED") or event.failure == "REPORTED"
        if event.previous_state != "PROCESSING" or not reported or key not in grants:
            continue
        lease = next(had for had in grants[key].answer["leases"] if _key(had) == key)
        known = [time for time in renewals[key] if time - lease["seconds"] <= event.create_time + _CLOCK]
        end = max([ends.get(key, lease["expire_time"]), *known])
        if event.create_time > end + _CLOCK:
            text = f"a report of {key} was taken {event.create_time - end:.3f} s after the lease had ended"
            found.append(Violation("SingleHolder", text, (grants[key], event)))
        ends[key] = max(end, event.create_time + lease["seconds"])
    return found


def no_lost_job(case: Case) -> list[Violation]:
    """What was acknowledged is kept, and what was asked once happened at most once."""
    history = case.history
    found = []
    jobs = {job.id: job for job in history.jobs}
    chains = case.chains
    made: dict[str, list[JobRow]] = defaultdict(list)
    for job in history.jobs:
        if job.tag:
            made[job.tag].append(job)
    for tag, twins in made.items():
        if len(twins) > 1:
            found.append(Violation("NoLostJob", f"{tag} was made {len(twins)} times", tuple(twins)))
    for operation in _answered(history):
        job_id = operation.answer.get("job_id", "")
        if not job_id:
            continue
        if job_id not in jobs:
            found.append(
                Violation("NoLostJob", f"{operation.method} was acknowledged and lost", (operation,))
            )
        elif not _is_kept(operation, chains.get(job_id, [])):
            evidence: tuple[Record, ...] = (operation, *chains.get(job_id, [])[-1:])
            found.append(Violation("NoLostJob", f"the {operation.method} of {job_id} was lost", evidence))
    return found


def _is_kept(operation: Operation, chain: list[Event]) -> bool:
    if not chain:
        return False
    applied = operation.answer.get("outcome", "APPLIED") in ("APPLIED", "REPEATED")
    if operation.method in _ENDS and applied:
        return chain[-1].state == _ENDS[operation.method]
    if operation.method == "UpdateJobProgress" and applied:
        request = operation.request
        return any(
            event.attempt == request["attempt"] and event.percentage >= request["percentage"]
            for event in chain
        )
    return True


def no_stuck_job(case: Case) -> list[Violation]:
    """Once the work is over no job is left that has not ended."""
    history = case.history
    if not history.drained:
        return []
    return [
        Violation("NoStuckJob", f"{job.id} is still {job.state}", (job,))
        for job in history.jobs
        if job.state not in FINAL
    ]


def attempt_monotone(case: Case) -> list[Violation]:
    """Attempts count starts, percentages never fall within one, and lost leases end a job when they must."""
    history = case.history
    found = []
    for chain in case.chains.values():
        for one, two in pairwise(chain):
            starts = one.state in WAITING and two.state == "PROCESSING"
            if two.attempt != one.attempt + starts:
                found.append(Violation("AttemptMonotone", "the attempt is miscounted", (one, two)))
            if two.attempt == one.attempt and two.percentage < one.percentage:
                found.append(Violation("AttemptMonotone", "the percentage fell", (one, two)))
            if two.state == "PROCESSING" and two.attempt == one.attempt and one.state != "PROCESSING":
                found.append(Violation("AttemptMonotone", "an attempt began twice", (one, two)))
    for job in history.jobs:
        spent = job.max_attempts and job.lost_leases >= job.max_attempts
        if bool(spent) != (job.failure == "LEASE_EXPIRED") or job.lost_leases > job.attempt:
            found.append(Violation("AttemptMonotone", f"{job.id} lost {job.lost_leases} leases", (job,)))
    return found


def events_match_row(case: Case) -> list[Violation]:
    """A job's events are numbered without a gap, in the log's order, and the last one is what the job is."""
    history = case.history
    found = []
    chains = case.chains
    for job in history.jobs:
        chain = chains.get(job.id, [])
        kept = [event.number for event in chain]
        if not kept or kept != list(range(kept[0], job.last_sequence + 1)):
            text = f"{job.id} has the events {kept} and not up to {job.last_sequence}"
            found.append(Violation("EventsMatchRow", text, (job,)))
            continue
        last = chain[-1]
        if (last.state, last.attempt, last.percentage, last.failure) != (
            job.state,
            job.attempt,
            job.percentage,
            job.failure,
        ):
            found.append(
                Violation("EventsMatchRow", f"{job.id} is not what its last event says", (job, last))
            )
        found += [
            Violation("EventsMatchRow", "the log has two events in the wrong order", pair)
            for pair in pairwise(chain)
            if pair[0].position >= pair[1].position > 0
        ]
    numbered = [event for event in history.events if event.position]
    if history.drained and len({event.position for event in numbered}) != len(history.events):
        missing = tuple(event for event in history.events if not event.position)[:3]
        found.append(Violation("EventsMatchRow", "events share a place in the log, or have none", missing))
    return found


def document_follows_job(case: Case) -> list[Violation]:
    """A document is INGESTING only while an ingestion of it runs, and INGESTED by one that went well."""
    history = case.history
    found = []
    of_document: dict[str, list[JobRow]] = defaultdict(list)
    for job in history.jobs:
        if job.kind == "INGESTION":
            of_document[job.document_id].append(job)
    for document in history.documents:
        jobs = of_document[document.id]
        running = [job for job in jobs if job.state == "PROCESSING"]
        finished = [job for job in jobs if job.state == "FINISHED"]
        expected = "INGESTING" if running else "INGESTED" if finished else "PENDING"
        if document.state != expected:
            text = f"document {document.id} is {document.state} and not {expected}"
            found.append(Violation("DocumentFollowsJob", text, tuple(running or finished or jobs[-1:])))
        if len(jobs) - sum(job.state in FINAL for job in jobs) > 1:
            text = f"document {document.id} has two open jobs"
            found.append(Violation("DocumentFollowsJob", text, tuple(jobs)))
    return found


def answered(case: Case) -> list[Violation]:
    """Nobody hears what a fault does not explain: a key that is refused, or an unforeseen error."""
    history = case.history
    found = [
        Violation("Answered", f"{operation.method} heard {operation.code} {operation.reason}", (operation,))
        for operation in history.operations
        if operation.code not in _EXPLAINED
    ]
    return found + [
        Violation("Answered", f"a stream ended with {connection.code} {connection.reason}", (connection,))
        for connection in history.connections
        if connection.code not in _ENDS_OF_STREAMS
    ]


def _answered(history: History) -> list[Operation]:
    return [operation for operation in history.operations if operation.code == "OK"]


LEASES = (
    single_holder,
    no_lost_job,
    no_stuck_job,
    attempt_monotone,
    events_match_row,
    document_follows_job,
    answered,
)
