"""The robustness suite as a command: ``python -m tests.robustness --database postgresql --events 20000``."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.backends.databases import EVERY_KIND
from tests.robustness import history as records
from tests.robustness.failpoints import FAILPOINTS, possible
from tests.robustness.run import Outcome, Plan, run
from tests.robustness.validators import judge
from tests.robustness.violations import shown

_ROUND = 20_000
"""Events of a round: each is recorded in memory, judged, and forgotten."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    parser.add_argument("--database", choices=EVERY_KIND, action="append", help="all three by default")
    parser.add_argument("--events", type=int, default=20_000, help="events of each database")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--failpoint", choices=sorted(FAILPOINTS), action="append", help="all by default")
    parser.add_argument("--no-faults", action="store_true", help="traffic alone")
    parser.add_argument("--servers", type=int, default=3, help="server processes; 1 in every fourth round")
    parser.add_argument("--keep", type=Path, default=Path(), help="where histories of failed runs are kept")
    parser.add_argument("--replay", type=Path, help="judge a history that was kept")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _round(kind: str, number: int, events: int, given: argparse.Namespace) -> Outcome:
    seed = given.seed + number
    chosen = [f for f in possible(kind) if not given.failpoint or f.name in given.failpoint]
    servers = 1 if number % 4 == 3 else given.servers
    plan = Plan(
        kind, events, seed, [] if given.no_faults else chosen, servers, long=events >= _ROUND, say=_say
    )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="morag-robustness-") as folder:
        outcome = run(plan, Path(folder))
    _say(f"{kind}, seed {seed}, {servers} servers, {time.monotonic() - begun:.0f} s: {outcome.figures}")
    if outcome.violations:
        path = given.keep / f"robustness-{kind}-{seed}.jsonl"
        records.write(outcome.history, path)
        _say(f"{shown(outcome.violations)}\nreplay it with --replay {path}")
    return outcome


def _database(kind: str, given: argparse.Namespace) -> int:
    """Run rounds on one kind of database until there were enough events; give the count of violations."""
    done, faults, violations, number = 0, Counter[str](), Counter[str](), 0
    while done < given.events:
        outcome = _round(kind, number, min(_ROUND, given.events - done), given)
        done += outcome.figures.events
        faults += outcome.figures.faults
        violations += Counter(violation.validator for violation in outcome.violations)
        number += 1
    _say(f"{kind}: {done} events, {sum(faults.values())} faults, {sum(violations.values())} violations")
    return sum(violations.values())


def main() -> int:
    """Run; give the exit code."""
    given = _arguments()
    if given.replay:
        found = judge(records.read(given.replay))
        _say(f"{shown(found)}\nviolations: {len(found)}")
        return bool(found)
    total = sum(_database(kind, given) for kind in given.database or EVERY_KIND)
    _say(f"violations: {total}")
    return bool(total)


if __name__ == "__main__":
    sys.exit(main())
