"""``python -m benchmarks``: one run of everything, in a quarter of an hour, or in three minutes.

With ``--once`` each part runs once, with few streams and keys: that it runs is all that this shows.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from rich.console import Console

from benchmarks import costs, keys, report, rounds, walls, watchers, workers, writers
from benchmarks.contract import BARE
from benchmarks.data import Filled, fill
from benchmarks.load import Callers, Target
from benchmarks.processes import Served, served
from benchmarks.wire import call_headers
from morag_meta.auth.authenticator import KEY_HEADER
from tests.backends.databases import open_backend
from tests.backends.postgresql import PostgresqlServer
from tests.backends.walled import Walls

_CHECKS = b"2000"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part takes; ``budget`` is the seconds of the interleaved rounds.

    ``crowd`` is the share of the streams that are opened.
    """

    budget: float
    stretch: float
    changes: int
    scaling_rounds: int
    writing_rounds: int
    costing_rounds: int
    key_rounds: int
    key_counts: tuple[int, ...] = keys.SIZES
    crowd: float = 1.0
    briefly: bool = True
    """Whether parts are left out that take long."""


_ONCE = Plan(
    budget=0.0,
    stretch=0.02,
    changes=5,
    scaling_rounds=1,
    writing_rounds=1,
    costing_rounds=1,
    key_rounds=1,
    key_counts=(1000, 2000),
    crowd=0.02,
)
_QUICK = Plan(
    budget=60.0,
    stretch=0.12,
    changes=10,
    scaling_rounds=5,
    writing_rounds=5,
    costing_rounds=10,
    key_rounds=3,
    key_counts=keys.SIZES[:2],
)
_FULL = Plan(
    budget=290.0,
    stretch=0.2,
    changes=40,
    scaling_rounds=20,
    writing_rounds=20,
    costing_rounds=60,
    key_rounds=8,
    briefly=False,
)
_KINDS = ("sqlite", "postgresql")
_PARTS = ("calls", "costs", "keys", "walls", "watchers", "writers", "processes")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="three minutes instead of a quarter of an hour")
    length.add_argument("--once", action="store_true", help="each part once: that it runs, not what it costs")
    parser.add_argument("--only", choices=_PARTS, action="append", help="one part; may be repeated")
    on = "one database, or both where repeated; calls are always compared on both"
    parser.add_argument("--on", choices=_KINDS, action="append", help=on)
    given = parser.parse_args()
    console = Console(width=140, highlight=False)
    plan = _ONCE if given.once else _QUICK if given.quick else _FULL
    watched, written = (("sqlite",), ("postgresql",)) if given.quick else (_KINDS, _KINDS)
    where = {part: given.on or (watched if part == "watchers" else written) for part in given.only or _PARTS}
    report.show(_measure(plan, where, console), console)


def _measure(plan: Plan, where: Mapping[str, Collection[str]], console: Console) -> report.Outcome:
    """Measure each part on the databases that ``where`` names; calls always on both, as they are compared."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(open_backend("sqlite"))
        server = stack.enter_context(PostgresqlServer())
        new_url = {"sqlite": files.new_url, "postgresql": server.create_database}
        databases = [fill(kind, new()) for kind, new in new_url.items()]
        outcome = report.Outcome([filled.kind for filled in databases], plan.stretch)

        def chosen(part: str) -> list[Filled]:
            kinds = where.get(part, ())
            if kinds:
                console.print(f"{part} …")
            return [filled for filled in databases if filled.kind in kinds]

        if chosen("calls"):
            _measure_calls(outcome, databases, server.pid, plan)
        _measure_costs(outcome, chosen, new_url, plan)
        for filled in chosen("walls"):
            if filled.kind == "postgresql":
                walled = fill(filled.kind, Walls(server).new_url())
                outcome.walls = walls.compare(
                    walled, filled, server.pid, rounds=plan.writing_rounds, seconds=plan.stretch * 3
                )
        for filled in chosen("watchers"):
            outcome.watched.update(
                watchers.measure(filled, plan.changes, crowd=plan.crowd, briefly=plan.briefly)
            )
        for filled in chosen("writers"):
            twin = fill(filled.kind, new_url[filled.kind]())
            outcome.writers[filled.kind] = writers.compare(
                filled, twin, rounds=plan.writing_rounds, seconds=plan.stretch * 3
            )
        for filled in chosen("processes"):
            outcome.scaling[filled.kind] = workers.compare(
                filled, rounds=plan.scaling_rounds, seconds=plan.stretch * 2
            )
    outcome.took = time.monotonic() - started
    return outcome


def _measure_costs(
    outcome: report.Outcome,
    chosen: Callable[[str], list[Filled]],
    new_url: Mapping[str, Callable[[], str]],
    plan: Plan,
) -> None:
    for filled in chosen("costs"):
        outcome.costs[filled.kind] = costs.compare(
            filled, rounds=plan.costing_rounds, seconds=plan.stretch * 2
        )
    for filled in chosen("keys"):
        outcome.verified[filled.kind] = keys.compare(
            filled.kind, new_url[filled.kind], plan.key_counts, rounds=plan.key_rounds
        )


def _measure_calls(outcome: report.Outcome, databases: list[Filled], database_pid: int, plan: Plan) -> None:
    with contextlib.ExitStack() as serving:
        servers = [(filled, serving.enter_context(served(filled.environment))) for filled in databases]
        outcome.measured = rounds.run(servers, database_pid, budget=plan.budget, stretch=plan.stretch)
        outcome.key_checks = {filled.kind: _time_key_checks(filled, process) for filled, process in servers}


def _time_key_checks(filled: Filled, process: Served) -> list[float]:
    """Have the server check the key some thousand times in a row, several times over; microseconds each."""
    callers = Callers(process.port, 1)
    headers = call_headers(f"/{BARE}/TimeKeyChecks", (KEY_HEADER, filled.key))
    times = [float(callers.ask(Target(headers, lambda: _CHECKS))) for _ in range(21)]
    callers.close()
    return times[1:]


if __name__ == "__main__":
    main()
