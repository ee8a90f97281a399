"""Long walks as a command: ``python -m tests.model --database postgresql --steps 10000``.

Each kind of database gets its steps in walks, each with a seed of its own and on an empty database.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

from morag_meta import logs
from tests.backends.databases import EVERY_KIND, Backend, open_backend
from tests.model import steps as files
from tests.model.telling import told, walked
from tests.model.walk import Walk, follow, wander


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--database", choices=EVERY_KIND, action="append", help="all three by default")
    parser.add_argument("--steps", type=int, default=10_000, help="steps on each database")
    parser.add_argument("--walk", type=int, default=1_000, help="the most steps of a walk")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", type=Path, default=Path(), help="where walks that failed are kept")
    parser.add_argument("--replay", type=Path, help="take a walk that was kept")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _one(backend: Backend, seed: int, steps: int, keep: Path) -> Walk:
    with walked(backend) as service:
        walk = wander(service, seed, steps)
    refused = sum(count for (_, answer), count in walk.answers.items() if answer != "OK")
    _say(f"{backend.name}, seed {seed}: {len(walk.steps)} steps, {refused} refused, {walk.seconds:.0f} s")
    if walk.divergence is not None:
        _say(told(backend, seed, walk, keep))
    return walk


def _database(kind: str, given: argparse.Namespace) -> int:
    """Walk on one kind of database until there were enough steps; give the count of walks that failed."""
    taken = failed = number = 0
    seconds, answers = 0.0, Counter[tuple[str, str]]()
    with open_backend(kind) as backend:
        while taken < given.steps:
            walk = _one(backend, given.seed + number, min(given.walk, given.steps - taken), given.keep)
            taken, failed, number = (
                taken + len(walk.steps),
                failed + (walk.divergence is not None),
                number + 1,
            )
            seconds, answers = seconds + walk.seconds, answers + walk.answers
    methods, kinds = {method for method, _ in answers}, {answer for _, answer in answers}
    _say(f"{kind}: {taken} steps of {len(methods)} methods in {seconds:.0f} s, {failed} walks failed")
    _say(f"  answers of {len(kinds)} kinds: {', '.join(sorted(kinds))}")
    return failed


def _replay(given: argparse.Namespace) -> int:
    (kind,) = given.database or ["sqlite"]
    with open_backend(kind) as backend, walked(backend) as service:
        walk = follow(service, files.read(given.replay))
    _say(f"{len(walk.steps)} steps: {walk.divergence or 'no difference'}")
    return int(walk.divergence is not None)


def main() -> int:
    """Walk; give the exit code."""
    given = _arguments()
    logs.configure("WARNING")
    if given.replay:
        return _replay(given)
    failed = sum(_database(kind, given) for kind in given.database or EVERY_KIND)
    _say(f"walks that failed: {failed}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
