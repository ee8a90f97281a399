"""What may happen to a job, tried over every state, verb and order of reports."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.db.schema import JOB_STATES
from morag_meta.errors import MetaError, Reason
from morag_meta.jobs.rules import (
    FINAL_STATES,
    NOBODY,
    TRANSITIONS,
    Holder,
    Outcome,
    Verb,
    after,
    check_retry,
    judge_report,
)

_NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
_TOKEN, _OTHER_TOKEN = "c0ffee00-0000-4000-8000-000000000001", "c0ffee00-0000-4000-8000-000000000002"
_LEASE = {
    "clock": _NOW,
    "lease_expire_time": _NOW + dt.timedelta(microseconds=1),
    "lease_token": _TOKEN,
    "worker_id": None,
    "failure": None,
}
_OPEN = tuple(state for state in JOB_STATES if state not in FINAL_STATES)


@pytest.mark.parametrize(("state", "verb"), list(itertools.product(JOB_STATES, Verb)))
def test_every_pair_of_state_and_verb_has_one_answer(state: str, verb: Verb) -> None:
    """A pair outside the table is refused, with JOB_ENDED for a final state and INVALID_STATE otherwise."""
    if (state, verb) in TRANSITIONS:
        assert after(state, verb) in JOB_STATES
        return
    with pytest.raises(MetaError) as refused:
        after(state, verb)

    assert refused.value.reason is (Reason.JOB_ENDED if state in FINAL_STATES else Reason.INVALID_STATE)


def test_final_states_are_left_by_no_verb() -> None:
    """FINISHED, FAILED and CANCELLED are final for ever, and every open state can be cancelled."""
    assert not [pair for pair in TRANSITIONS if pair[0] in FINAL_STATES]
    assert {state for state, verb in TRANSITIONS if verb is Verb.CANCEL} == set(_OPEN)


@pytest.mark.parametrize("state", JOB_STATES)
def test_only_failed_and_cancelled_jobs_are_repeated(state: str) -> None:
    """RetryJob takes FAILED and CANCELLED jobs alone."""
    if state in ("FAILED", "CANCELLED"):
        check_retry(state)
        return
    with pytest.raises(MetaError) as refused:
        check_retry(state)

    assert refused.value.reason is Reason.INVALID_STATE


class _Job:
    """The least of a job that its reports change, kept as the service keeps it."""

    def __init__(self) -> None:
        self.row: dict[str, Any] = {"state": "PROCESSING", "attempt": 1, "report_number": 0, **_LEASE}

    def report(self, verb: Verb | None, attempt: int, number: int) -> Outcome | Reason:
        try:
            outcome = judge_report(self.row, verb, attempt, number, NOBODY)
        except MetaError as refused:
            return refused.reason
        if outcome is Outcome.APPLIED:
            self.row["report_number"] = number
            if verb is not None:
                self.row |= {"state": after("PROCESSING", verb), "lease_expire_time": None}
                self.row["failure"] = "REPORTED" if verb is Verb.FAIL else None
        return outcome


_REPORTS = st.tuples(st.sampled_from([None, Verb.COMPLETE, Verb.FAIL]), st.integers(0, 2), st.integers(1, 5))


@given(st.lists(_REPORTS, max_size=25))
def test_reports_in_any_order_end_a_job_once_and_never_go_back(reports: list[Any]) -> None:
    """Whatever comes in whatever order, numbers only rise, one report ends the job, and none follows it."""
    job, applied, ends = _Job(), [], 0
    for verb, attempt, number in reports:
        state = job.row["state"]
        answer = job.report(verb, attempt, number)
        if attempt != 1:
            assert answer is Reason.STALE_ATTEMPT
        if answer is Outcome.APPLIED:
            assert state == "PROCESSING"
            applied.append(number)
            ends += verb is not None
        else:
            assert job.row["state"] == state

    assert applied == sorted(set(applied))
    assert ends <= 1


@given(st.lists(_REPORTS, max_size=25))
def test_a_repeated_report_is_success_and_changes_nothing(reports: list[Any]) -> None:
    """Sending a report that was applied at once again is REPEATED, also when it ended the job."""
    job = _Job()
    for verb, attempt, number in reports:
        if job.report(verb, attempt, number) is Outcome.APPLIED:
            before = dict(job.row)
            assert job.report(verb, attempt, number) is Outcome.REPEATED
            assert job.row == before


@pytest.mark.parametrize("state", [state for state in _OPEN if state != "PROCESSING"])
def test_a_job_that_was_not_started_takes_no_reports(state: str) -> None:
    """A report of a job that waits is INVALID_STATE."""
    row = {**_LEASE, "state": state, "attempt": 0, "report_number": 0}
    with pytest.raises(MetaError) as refused:
        judge_report(row, None, 1, 1, NOBODY)

    assert refused.value.reason is Reason.INVALID_STATE


def test_ending_with_the_number_of_a_progress_report_is_refused() -> None:
    """A number that progress used cannot end the job: the worker counts on."""
    job = _Job()
    job.report(None, 1, 3)

    assert job.report(Verb.COMPLETE, 1, 3) is Reason.REPORT_NUMBER_USED
    assert job.report(Verb.COMPLETE, 1, 2) is Outcome.IGNORED
    assert job.report(Verb.COMPLETE, 1, 4) is Outcome.APPLIED


def test_a_cancelled_job_refuses_every_report() -> None:
    """A worker learns from any report that its job was called off."""
    row = {**_LEASE, "state": "CANCELLED", "attempt": 1, "report_number": 4}
    for verb, number in itertools.product((None, Verb.COMPLETE, Verb.FAIL), (1, 4, 9)):
        with pytest.raises(MetaError) as refused:
            judge_report(row, verb, 1, number, NOBODY)

        assert refused.value.reason is Reason.JOB_ENDED


def test_the_end_that_the_service_made_repeats_no_report() -> None:
    """A job that a deadline failed answers a worker's own failure with JOB_ENDED, whatever its number."""
    row = {**_LEASE, "state": "FAILED", "failure": "ATTEMPT_TOO_LONG", "attempt": 1, "report_number": 4}
    for number in (4, 5):
        with pytest.raises(MetaError) as refused:
            judge_report(row, Verb.FAIL, 1, number, NOBODY)

        assert refused.value.reason is Reason.JOB_ENDED


@pytest.mark.parametrize("verb", [None, Verb.COMPLETE, Verb.FAIL])
@pytest.mark.parametrize(
    ("lease", "holder"),
    [
        ({"clock": _NOW + dt.timedelta(microseconds=1)}, Holder(_TOKEN)),
        ({}, Holder(_OTHER_TOKEN)),
        ({}, Holder("né")),
        ({}, Holder(must_show=True)),
        ({"worker_id": "a worker"}, NOBODY),
        ({"worker_id": "a worker"}, Holder(_OTHER_TOKEN)),
        ({"state": "PENDING", "lease_token": None, "lease_expire_time": None}, Holder(_TOKEN)),
    ],
    ids=["expired", "another's", "no token", "must show", "a worker's", "another worker's", "requeued"],
)
def test_only_a_living_lease_lets_a_report_in(
    lease: dict[str, Any], holder: Holder, verb: Verb | None
) -> None:
    """From its expiry on, without its token or with another, a lease is lost to whoever reports."""
    row = {**_LEASE, "state": "PROCESSING", "attempt": 2, "report_number": 4, **lease}
    with pytest.raises(MetaError) as refused:
        judge_report(row, verb, 2, 5, holder)

    assert refused.value.reason is Reason.LEASE_LOST
    assert refused.value.metadata == {"attempt": "2", "current_attempt": "2"}


@pytest.mark.parametrize("holder", [Holder(_TOKEN), Holder(_TOKEN, must_show=True), NOBODY])
def test_the_holder_of_a_living_lease_reports(holder: Holder) -> None:
    """With the token a report is applied, and without it where StartJob made the lease."""
    row = {**_LEASE, "state": "PROCESSING", "attempt": 2, "report_number": 4}
    assert judge_report(row, None, 2, 5, holder) is Outcome.APPLIED
