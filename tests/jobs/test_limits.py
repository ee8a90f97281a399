"""Deadlines by type, pauses after lost leases, and that a job is looked at exactly when something is due."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.db.schema import JOB_STATES
from morag_meta.jobs.limits import Backoff, Overdue, due_time, judge, start_to_close_ms
from morag_meta.jobs.rules import FINAL_STATES

_START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
_MINUTE = 60_000


@pytest.mark.parametrize(
    ("types", "minutes"),
    [
        (("audio", "mp3", "WAV", "video", "mp4", "webm"), 60),
        (("document", "pdf", "PDF", "txt", "docx", "md"), 15),
        (("image", "png", "Jpeg"), 5),
        (("web", "html"), 10),
        (("youtube", "zip", "", None), 30),
    ],
)
def test_an_attempt_has_the_time_of_its_documents_type(types: tuple[str | None, ...], minutes: int) -> None:
    """Audio and video 60 minutes, documents 15, images 5, web pages 10, YouTube and all others 30."""
    assert {start_to_close_ms(each) for each in types} == {minutes * _MINUTE}


_SECONDS = st.floats(0, 4000, allow_nan=False)


@given(first=_SECONDS, longest=_SECONDS, lost=st.integers(1, 100), chance=st.floats(0, 1))
def test_a_pause_is_at_most_a_tenth_shorter_than_its_step(
    first: float, longest: float, lost: int, chance: float
) -> None:
    """Each pause is doubled from the first up to the longest, and chance takes off a tenth at most."""
    step = min(first * 2 ** (lost - 1), longest)
    pause = Backoff(first, longest).pause(lost, chance).total_seconds()
    assert 0.9 * step - 1e-5 <= pause <= step + 1e-5


def test_pauses_by_default() -> None:
    """The pauses are 30, 60, 120, 240, 300 and 300 s, without the part that chance takes off."""
    backoff = Backoff()
    assert [backoff.pause(lost, 0).total_seconds() for lost in range(1, 7)] == [30, 60, 120, 240, 300, 300]
    assert backoff.pause(1, 1).total_seconds() == pytest.approx(27)


def _at(seconds: int) -> dt.datetime:
    return _START + dt.timedelta(seconds=seconds)


_WHEN = st.integers(0, 60).map(_at)
_SPAN_MS = st.integers(0, 60_000)
_LIMITS: dict[str, st.SearchStrategy[Any]] = {
    "clock": st.integers(0, 120).map(_at),
    "queue_time": _WHEN,
    "close_time": _WHEN,
    "schedule_to_start_ms": _SPAN_MS,
    "start_to_close_ms": _SPAN_MS,
    "max_attempts": st.integers(1, 4),
    "lost_leases": st.integers(0, 5),
}


@st.composite
def _rows(draw: st.DrawFn) -> dict[str, Any]:
    row = {name: draw(values) for name, values in _LIMITS.items()}
    state = draw(st.sampled_from(JOB_STATES))
    running, remote = state == "PROCESSING", state == "WAITING_FOR_REMOTE_WORKER"
    return row | {
        "state": state,
        "start_time": draw(_WHEN) if running else None,
        "lease_expire_time": draw(_WHEN) if running else None,
        "fallback_delay_ms": draw(_SPAN_MS) if remote else None,
    }


@given(_rows())
def test_something_is_due_exactly_from_the_due_time_on(row: dict[str, Any]) -> None:
    """A job is found by its due time if and only if something is to be done about it then."""
    due = due_time(row)
    if row["state"] in FINAL_STATES:
        assert due is None
        assert judge(row) is None
        return
    assert due is not None
    assert (judge(row) is not None) == (row["clock"] >= due)
    assert judge({**row, "clock": due}) is not None
    assert judge({**row, "clock": due - dt.timedelta(microseconds=1)}) is None


@given(_rows(), st.integers(0, 10))
def test_what_is_due_does_not_pass_by_itself(row: dict[str, Any], seconds: int) -> None:
    """Later something is due as well; once a job is to fail it never is only to wait again."""
    now, later = judge(row), judge({**row, "clock": row["clock"] + dt.timedelta(seconds=seconds)})
    assert (later is not None) or (now is None)
    if now is not None and later is not None:
        assert now[0] is not Overdue.FAIL or later[0] is Overdue.FAIL
