"""``python -m benchmarks``: one run of everything, in about eight minutes, or two with ``--quick``."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console

from benchmarks import report, rounds, watchers, workers
from benchmarks.contract import BARE
from benchmarks.data import Filled, fill
from benchmarks.load import Callers, Target
from benchmarks.processes import Served, served
from benchmarks.wire import call_headers
from morag_meta.auth.authenticator import KEY_HEADER
from tests.backends.databases import open_backend
from tests.backends.postgresql import PostgresqlServer

_CHECKS = b"2000"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part takes; ``budget`` is the seconds of the interleaved rounds."""

    budget: float
    stretch: float
    changes: int
    scaling_rounds: int


_QUICK = Plan(budget=60.0, stretch=0.12, changes=5, scaling_rounds=5)
_FULL = Plan(budget=290.0, stretch=0.2, changes=20, scaling_rounds=20)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about two minutes instead of eight")
    plan = _QUICK if parser.parse_args().quick else _FULL
    console = Console(width=140, highlight=False)
    report.show(_measure(plan, console), console)


def _measure(plan: Plan, console: Console) -> report.Outcome:
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(open_backend("sqlite"))
        server = stack.enter_context(PostgresqlServer())
        databases = [fill("sqlite", files.new_url()), fill("postgresql", server.create_database())]
        with contextlib.ExitStack() as serving:
            servers = [(filled, serving.enter_context(served(filled.environment))) for filled in databases]
            console.print("calls and their rivals …")
            measured = rounds.run(servers, server.pid, budget=plan.budget, stretch=plan.stretch)
            checks = {filled.kind: _time_key_checks(filled, process) for filled, process in servers}
        console.print("watchers …")
        watched = dict(_watch(databases if plan is _FULL else databases[:1], plan.changes))
        console.print("two processes against one …")
        scaled = databases if plan is _FULL else databases[1:]
        scaling = {
            filled.kind: workers.compare(filled, rounds=plan.scaling_rounds, seconds=plan.stretch * 2)
            for filled in scaled
        }
    kinds = [filled.kind for filled in databases]
    took = time.monotonic() - started
    return report.Outcome(kinds, plan.stretch, measured, checks, watched, scaling, took)


def _time_key_checks(filled: Filled, process: Served) -> list[float]:
    """Have the server check the key some thousand times in a row, several times over; microseconds each."""
    callers = Callers(process.port, 1)
    headers = call_headers(f"/{BARE}/TimeKeyChecks", (KEY_HEADER, filled.key))
    times = [float(callers.ask(Target(headers, lambda: _CHECKS))) for _ in range(21)]
    callers.close()
    return times[1:]


def _watch(databases: list[Filled], changes: int) -> Iterator[tuple[str, watchers.Watched]]:
    """Watch in processes of their own, so that none inherits the memory of another."""
    for filled in databases:
        for count, own in ((1000, False), (3000, False), (3000, True)):
            jobs = watchers.start_jobs(filled, count if own else 1)
            with served(filled.environment) as process:
                watched = watchers.watch(
                    filled, process, jobs if own else jobs * count, changes=0 if own else changes
                )
            yield f"{filled.kind}: {count} watchers of {'a job each' if own else 'one job'}", watched


if __name__ == "__main__":
    main()
