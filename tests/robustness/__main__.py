"""The robustness suite as a command: ``python -m tests.robustness --database postgresql --events 20000``.

Each kind of database gets its events in rounds, each with a seed of its own, new servers and an empty
database; a round is recorded in memory, judged, and forgotten. After the rounds a watcher comes back to as
many events as an hour brings.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.backends.databases import EVERY_KIND
from tests.robustness import history as records
from tests.robustness.away import come_back
from tests.robustness.failpoints import FAILPOINTS, possible
from tests.robustness.figures import Figures
from tests.robustness.history import History
from tests.robustness.run import Plan, run
from tests.robustness.shortest import tell_shortest
from tests.robustness.validators import judge
from tests.robustness.violations import Violation, shown

_LONG = 10_000
"""Events of a round in which there is time to wait for long."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    parser.add_argument("--database", choices=EVERY_KIND, action="append", help="all three by default")
    parser.add_argument("--events", type=int, default=20_000, help="events of each database")
    parser.add_argument("--round", type=int, default=50_000, help="the most events of a round")
    parser.add_argument("--away", type=int, default=20_000, help="events of an hour; 0 leaves that out")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--failpoint", choices=sorted(FAILPOINTS), action="append", help="all by default")
    parser.add_argument("--no-faults", action="store_true", help="traffic alone")
    parser.add_argument("--servers", type=int, help="server processes; 3, and 1 in every third round")
    parser.add_argument("--minutes", type=float, help="begin no round later than this for each database")
    parser.add_argument("--keep", type=Path, default=Path(), help="where histories of failed runs are kept")
    parser.add_argument("--replay", type=Path, help="judge a history that was kept")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _tell(found: Sequence[Violation], history: History, again: str, path: Path) -> None:
    """Say what was found, keep the history in a file, and show the shortest part of it that shows some."""
    records.write(history, path)
    _say(
        f"{shown(found)}\nseed {history.seed}; judge it again with --replay {path}; run it again with {again}"
    )
    _say(tell_shortest(history, found, path))


def _round(kind: str, number: int, events: int, given: argparse.Namespace) -> tuple[Figures, int]:
    seed = given.seed + number
    chosen = [f for f in possible(kind) if not given.failpoint or f.name in given.failpoint]
    servers = given.servers or (1 if number % 3 == 1 else 3)
    plan = Plan(
        kind, events, seed, [] if given.no_faults else chosen, servers, long=events >= _LONG, say=_say
    )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="morag-robustness-") as folder:
        outcome = run(plan, Path(folder))
    seconds = time.monotonic() - begun
    _say(f"{kind}, seed {seed}, {servers} servers, {seconds:.0f} s\n  {outcome.figures}")
    if outcome.violations:
        only = "".join(f" --failpoint {name}" for name in given.failpoint or ())
        only += " --no-faults" if given.no_faults else ""
        again = f"--database {kind} --seed {seed} --servers {servers} --events {events} --away 0{only}"
        _tell(outcome.violations, outcome.history, again, given.keep / f"robustness-{kind}-{seed}.jsonl")
    return outcome.figures, len(outcome.violations)


def _hour(kind: str, given: argparse.Namespace) -> int:
    """Have a watcher come back after an hour; give the count of violations."""
    with tempfile.TemporaryDirectory(prefix="morag-robustness-") as folder:
        back = come_back(kind, Path(folder), given.away, given.seed)
    _say(f"{kind}: {back}")
    if back.violations:
        again = f"--database {kind} --seed {given.seed} --events 0 --away {given.away}"
        _tell(back.violations, back.history, again, given.keep / f"robustness-{kind}-away-{given.seed}.jsonl")
    return len(back.violations)


def _database(kind: str, given: argparse.Namespace) -> int:
    """Run rounds on one kind of database until there were enough events; give the count of violations."""
    figures, violations, number = Figures(), 0, 0
    most = min(given.round, max(given.events // 2, _LONG))  # so that there are rounds of both kinds
    limit = time.monotonic() + (60 * given.minutes if given.minutes else float("inf"))
    while figures.events < given.events and time.monotonic() < limit:
        new, found = _round(kind, number, min(most, given.events - figures.events), given)
        figures, violations, number = figures + new, violations + found, number + 1
    if given.away:
        violations += _hour(kind, given)
    faults = sum(figures.faults.values())
    _say(f"{kind}: {figures.events} events, {faults} faults, {violations} violations\n  {figures}")
    _say(f"  memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")
    return violations


def main() -> int:
    """Run; give the exit code."""
    given = _arguments()
    if given.replay:
        history = records.read(given.replay)
        found = judge(history)
        if found:
            _say(f"{shown(found)}\n{tell_shortest(history, found, given.replay)}")
        _say(f"violations: {len(found)}")
        return bool(found)
    total = sum(_database(kind, given) for kind in given.database or EVERY_KIND)
    _say(f"violations: {total}")
    return bool(total)


if __name__ == "__main__":
    sys.exit(main())
