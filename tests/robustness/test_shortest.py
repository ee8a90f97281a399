"""A history is made shorter without losing what it shows, and without showing something else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from tests.robustness import history as records
from tests.robustness.breaks import lose
from tests.robustness.history import History
from tests.robustness.imagined import Imagined
from tests.robustness.shortest import shortest, tell_shortest
from tests.robustness.validators import judge
from tests.robustness.violations import Violation


def _broken(seed: int) -> tuple[History, Violation]:
    history = Imagined(seed, jobs=20).history
    lose(history)
    return history, next(found for found in judge(history) if found.validator == "Reliable")


@given(st.integers(0, 1000))
@with_settings(max_examples=5, deadline=None)
def test_the_shortest_history_shows_the_same(seed: int) -> None:
    """Of hundreds of records a few are left, with the same sentence about them, and none could be spared."""
    history, violation = _broken(seed)
    part = shortest(history, violation)
    assert part is not None
    assert violation in judge(part)
    left = records.all_of(part)
    assert len(left) <= 8 < len(records.all_of(history))
    for place in range(len(left)):
        less = History(part.seed, part.database, part.drained)
        records.add(less, left[:place] + left[place + 1 :])
        assert violation not in judge(less)


def test_it_can_be_kept_and_judged_again(tmp_path: Path) -> None:
    """The shortest history is told, and says in the file that is named what it said before."""
    history, violation = _broken(3)
    told = tell_shortest(history, [Violation("Alive", "nobody heard"), violation], tmp_path / "whole.jsonl")
    head, *lines = told.splitlines()
    assert "Reliable" in head
    assert f"{len(lines)} records" in head
    path = tmp_path / "whole.shortest.jsonl"
    assert str(path) in head
    assert violation in judge(records.read(path))
    assert tell_shortest(history, [Violation("Alive", "nobody heard")], path) == ""


def test_what_no_history_shows_has_no_shortest_one() -> None:
    """What a run complained of by itself, and no validator does, is not looked for."""
    assert shortest(Imagined(1).history, Violation("Alive", "nobody heard")) is None


def test_without_time_what_shows_it_is_given_as_it_is() -> None:
    """Where there is no time to make it short, the part that is about the same job is given."""
    history, violation = _broken(4)
    part = shortest(history, violation, patience=0)
    assert part is not None
    assert violation in judge(part)
