"""The short form of the suite: each kind of database under at least six faults, and no promise broken.

A run that fails says its seed and leaves its history; ``python -m tests.robustness`` runs the long form.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from tests.backends.databases import chosen_kinds
from tests.robustness import history as records
from tests.robustness.failpoints import FAILPOINTS
from tests.robustness.run import BESIDE, Plan, run
from tests.robustness.shortest import tell_shortest
from tests.robustness.violations import shown

_EVERYWHERE = (
    "kill-server",
    "kill-after-send",
    "pause-workers",
    "cut-clients",
    "stop-reading",
    "trim-events",
)
_SERVERS = (
    "cut-before-commit",
    "cut-after-commit",
    "kill-sequencer",
    "terminate-connections",
    "pause-database",
)
CHOSEN = {
    "sqlite": (*_EVERYWHERE, "kill-workers", "hold-write-lock", "delay-clients"),
    "postgresql": (*_EVERYWHERE, *_SERVERS, "cut-listener"),
    "mariadb": (*_EVERYWHERE, *_SERVERS),
}


def test_what_happens_beside_a_fault_starts_no_workers() -> None:
    """Workers end with the thread that started them, and that of a fault beside another is soon over."""
    assert set(BESIDE) <= set(FAILPOINTS)
    assert not any("Crew" in name or "restart" in name for f in BESIDE for name in _used_by(f))


def _used_by(failpoint: str) -> tuple[str, ...]:
    return FAILPOINTS[failpoint].run.__code__.co_names


@pytest.mark.parametrize("kind", chosen_kinds())
def test_nothing_that_was_promised_is_broken(kind: str, tmp_path: Path) -> None:
    """Through kills, pauses, cuts and lost commits no event and no job is lost, repeated or misplaced."""
    seed = random.SystemRandom().randrange(10**6)
    plan = Plan(kind, 600, seed, [FAILPOINTS[name] for name in CHOSEN[kind]], servers=2, sizes=(6, 4, 14))
    outcome = run(plan, tmp_path)
    if outcome.violations:
        path = Path(tempfile.gettempdir()) / f"robustness-{kind}-{seed}.jsonl"
        records.write(outcome.history, path)
        part = tell_shortest(outcome.history, outcome.violations, path)
        pytest.fail(f"seed {seed}, history {path}\n{shown(outcome.violations)}\n{part}")
    assert {fault.name for fault in outcome.history.faults} == set(CHOSEN[kind])
    assert outcome.figures.events >= plan.events
