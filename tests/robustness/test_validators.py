"""Each validator is silent over a history that keeps its promise, and complains of one that breaks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from tests.robustness import history as records
from tests.robustness.breaks import BREAKS, Break, lose
from tests.robustness.case import Case
from tests.robustness.history import Frame, History
from tests.robustness.imagined import Imagined
from tests.robustness.validators import VALIDATORS, judge
from tests.robustness.violations import Validator, shown

SEEDS = st.integers(0, 10_000)


@given(SEEDS)
@with_settings(max_examples=15)
def test_a_history_that_keeps_every_promise_is_not_complained_of(seed: int) -> None:
    """No validator says anything of a history without a fault, whatever happened in it."""
    assert shown(judge(Imagined(seed).history)) == ""


@pytest.mark.parametrize(
    ("validator", "break_it"), BREAKS, ids=[f"{v.__name__}-{b.__name__}" for v, b in BREAKS]
)
def test_a_broken_history_is_complained_of(validator: Validator, break_it: Break) -> None:
    """What is silent over a history speaks once its promise is broken there, with the evidence for it."""
    broken = 0
    for seed in range(8):
        history = Imagined(seed, jobs=10).history
        try:
            break_it(history)
        except (StopIteration, IndexError, AssertionError):
            continue  # nothing of the kind happened in this history
        broken += 1
        found = validator(Case(history))
        assert found, seed
        assert all(len(violation.evidence) <= 3 for violation in found)
    assert broken >= 2


def test_a_snapshot_that_was_broken_off_does_not_count() -> None:
    """What left the filter before the snapshot was sent again is not waited for."""
    history = next(made for made in map(_with_two_snapshots, range(50)) if made is not None)
    assert shown(judge(history)) == ""


def _with_two_snapshots(seed: int) -> History | None:
    """Have a watcher's snapshot broken off after a job that the next one no longer holds."""
    history = Imagined(seed).history
    held = {f.job.id for f in history.frames if f.watcher == "late states" and f.job is not None}
    before = len(history.events) // 2
    gone = next((e for e in history.events[:before] if e.state == "PENDING" and e.job_id not in held), None)
    if gone is None or not held:
        return None
    job = next(job for job in history.jobs if job.id == gone.job_id)
    stale = replace(
        job, state=gone.state, attempt=gone.attempt, percentage=gone.percentage, last_sequence=gone.number
    )
    first = next(c for c in history.connections if c.watcher == "late states")
    history.connections = [
        replace(c, after=c.after + 1) if c.watcher == first.watcher and c.after > 0 else c
        for c in history.connections
    ]
    history.connections.insert(0, replace(first, number=-1))
    history.frames.insert(0, Frame("late states", 0, -1, gone.create_time, "snapshot", job=stale))
    return history


def test_every_validator_is_tested_by_a_broken_history() -> None:
    """There is no validator that this file has not seen complain."""
    assert {validator for validator, _ in BREAKS} == set(VALIDATORS)


def test_a_kept_history_is_judged_as_the_run_was(tmp_path: Path) -> None:
    """A history that was written and read again is the same, and so is what is said of it."""
    history = Imagined(5, jobs=10).history
    lose(history)
    records.write(history, tmp_path / "history")
    again = records.read(tmp_path / "history")
    assert again == history
    assert shown(judge(again)) == shown(judge(history)) != ""


def test_a_file_that_a_killed_process_left_is_read_up_to_its_last_line(tmp_path: Path) -> None:
    """Half a line at the end of what a process wrote is left out."""
    history = Imagined(1).history
    text = "".join(records.to_line(o) + "\n" for o in history.operations[:3])
    (tmp_path / "part").write_text(text + records.to_line(history.operations[3])[:20])
    assert records.read_lines(tmp_path / "part") == history.operations[:3]
