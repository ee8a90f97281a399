"""What a run prints: tables of figures beside their aims. It judges nothing."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.calls import BARE_RAW, GET, KEY, LIST, ORM, OURS, RAW, RIVALS, TOKEN, UPDATE
from benchmarks.costs import ASKED, BY_TLS, OPEN, Costs
from benchmarks.keys import Verification
from benchmarks.rounds import CALLERS, Measured, Spread, percentile_of
from benchmarks.walls import Cost
from benchmarks.watchers import Watched
from benchmarks.workers import Scaling
from benchmarks.writers import ALONE, UNNUMBERED, WATCHED, Writers

SEEDS = {LIST: ("query", 100), TOKEN: ("token check", 50), UPDATE: ("job update", 10)} | {
    GET: ("document read", 25),
    KEY: ("key check", 5),
}
"""The figures that the forerunners of this service aimed at, in milliseconds."""
_AIMS = {(GET, RAW): "≥ 0.75", (GET, ORM): "≥ 1.6", (UPDATE, RAW): "≥ 0.75"}
_MOST_MEMORY_KB = 27
_MOST_CHECK_US = 10
_LEAST_SCALING = 1.5
_MOST_ASKING_PERCENT = 15
_FAN_OUT_AIMS = {1000: (60, 50), 5000: (400, 200)}
"""The most milliseconds, for so many watchers: of a change to them, and of a call beside it; p99."""


@dataclass(slots=True)
class Outcome:
    """Everything that a run measured."""

    kinds: list[str]
    stretch: float
    measured: Measured = field(default_factory=Measured)
    key_checks: dict[str, list[float]] = field(default_factory=dict)
    """Microseconds of one cached check, by database, each from thousands of them."""
    costs: dict[str, Costs] = field(default_factory=dict)
    verified: dict[str, Verification] = field(default_factory=dict)
    watched: dict[str, Watched] = field(default_factory=dict)
    """By what was watched."""
    writers: dict[str, Writers] = field(default_factory=dict)
    walls: dict[str, Cost] = field(default_factory=dict)
    """With row security to without, by method."""
    scaling: dict[str, Scaling] = field(default_factory=dict)
    took: float = 0.0


def show(outcome: Outcome, console: Console) -> None:
    """Print it all."""
    console.print(
        f"{_machine()}; {outcome.measured.rounds} rounds, {outcome.stretch:g} s a stretch; {CALLERS} callers"
        f" at once, or one alone; {outcome.took:.0f} s in all; load now {os.getloadavg()[0]:.1f}",
        soft_wrap=True,
    )
    if outcome.measured.rounds:
        for kind in outcome.kinds:
            console.print(_methods(outcome.measured, kind))
        console.print(_latencies(outcome))
    if outcome.walls:
        console.print(_walls(outcome.walls))
    console.print(_others(outcome))
    if outcome.measured.failures:
        console.print(f"{outcome.measured.failures} calls failed: the figures count only those that did not")


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} x {model}, Python {platform.python_version()}"


def _methods(measured: Measured, kind: str) -> Table:
    table = Table(title=f"{kind}: calls per second, as a ratio to each rival", title_justify="left")
    table.add_column("method")
    table.add_column("against")
    for name in ("calls/s", "ratio", "quartiles", "aim", "by processor time", "server µs", "database µs"):
        table.add_column(name, justify="right")
    for method, rivals in RIVALS.items():
        rate = f"{measured.rate(kind, method, OURS):.0f}"
        table.add_row(method, "", rate, *[""] * 4, *_cpu(measured, kind, method, OURS))
        for rival in rivals:
            ratio, cpu = measured.ratio(kind, method, rival), measured.cpu_ratio(kind, method, rival)
            table.add_row(
                "",
                _name(method, rival),
                f"{measured.rate(kind, method, rival):.0f}",
                f"{ratio.median:.2f}",
                _quartiles(ratio),
                _AIMS.get((method, rival), ""),
                f"{cpu.median:.2f} ({_quartiles(cpu)})",
                *_cpu(measured, kind, method, rival),
            )
    return table


def _name(method: str, rival: str) -> str:
    return "a look-up each time" if (method, rival) == (KEY, BARE_RAW) else rival


def _cpu(measured: Measured, kind: str, method: str, rival: str) -> tuple[str, str]:
    server = measured.cpu(kind, method, rival, "server")
    database = measured.cpu(kind, method, rival, "database")
    return f"{server * 1e6:.0f}", f"{max(database, 0.0) * 1e6:.0f}"


def _quartiles(spread: Spread) -> str:
    return f"{spread.low:.2f}-{spread.high:.2f}"


def _latencies(outcome: Outcome) -> Table:
    table = Table(title="one caller alone, milliseconds", title_justify="left")
    table.add_column("method")
    for name in ("seeds' figure", *(f"{kind} p{p}" for kind in outcome.kinds for p in (50, 99))):
        table.add_column(name, justify="right")
    for method, (title, figure) in SEEDS.items():
        cells = [
            f"{outcome.measured.latency(kind, method, percentile) * 1000:.2f}"
            for kind in outcome.kinds
            for percentile in (50, 99)
        ]
        table.add_row(method, f"{title} {figure}", *cells)
    return table


def _walls(costs: dict[str, Cost]) -> Table:
    table = Table(title="postgresql: with row security, as a ratio to without", title_justify="left")
    table.add_column("method")
    for name in ("calls/s", "server processor time", "database processor time"):
        table.add_column(name, justify="right")
    for method, cost in costs.items():
        spreads = (cost.rate, cost.server_cpu, cost.database_cpu)
        table.add_row(method, *(f"{spread.median:.2f} ({_quartiles(spread)})" for spread in spreads))
    return table


def _others(outcome: Outcome) -> Table:
    table = Table(title="keys, streams and processes", title_justify="left")
    table.add_column("what")
    for name in ("measured", "spread", "aim"):
        table.add_column(name, justify="right")
    for kind, checks in outcome.key_checks.items():
        spread = Spread.of(checks)
        table.add_row(
            f"{kind}: cached key check",
            f"{spread.median:.1f} µs",
            _quartiles(spread),
            f"≤ {_MOST_CHECK_US} µs",
        )
    for kind, costs in outcome.costs.items():
        _add_costs(table, kind, costs)
    for kind, verified in outcome.verified.items():
        _add_verified(table, kind, verified)
    for title, watched in outcome.watched.items():
        _add_watched(table, title, watched)
    for kind, writing in outcome.writers.items():
        _add_writers(table, kind, writing)
    for kind, scaling in outcome.scaling.items():
        name = f"{kind}: GetDocument, two processes against one"
        table.add_row(name, f"{scaling.ratio.median:.2f}", _quartiles(scaling.ratio), f"≥ {_LEAST_SCALING}")
        cores = " and ".join(f"{cores:.2f}" for cores in scaling.cores)
        table.add_row(f"{kind}: cores that the one had, and the two", cores, "", "")
    return table


def _add_costs(table: Table, kind: str, costs: Costs) -> None:
    for name, spread, aim in (
        ("asking who calls adds, by processor time", costs.asking_cpu, f"≤ {_MOST_ASKING_PERCENT} %"),
        ("asking who calls adds, by rate", costs.asking_rate, ""),
        ("TLS adds to that, by processor time", costs.tls_cpu, ""),
        ("TLS adds to that, by rate", costs.tls_rate, ""),
    ):
        percent = Spread(*(100 * share for share in (spread.median, spread.low, spread.high)))
        quartiles = f"{percent.low:.0f}-{percent.high:.0f}"
        table.add_row(f"{kind}: GetDocument, {name}", f"{percent.median:.0f} %", quartiles, aim)
    times = " / ".join(f"{costs.cpu[state] * 1e6:.0f}" for state in (OPEN, ASKED, BY_TLS))
    table.add_row(f"{kind}: the server's µs of a call: open to all, asked, by TLS", times, "", "")


def _add_verified(table: Table, kind: str, verified: Verification) -> None:
    for name, asked, ratios in (
        ("of a key not seen yet", verified.cold, verified.cold_ratio),
        ("of a key seen before", verified.cached, verified.cached_ratio),
    ):
        sizes = " / ".join(f"{size:,}" for size in asked)
        times = " / ".join(f"{each.latency * 1000:.2f}" for each in asked.values())
        table.add_row(f"{kind}: VerifyApiKey {name}, ms at {sizes} keys", times, "", "")
        times = " / ".join(f"{each.cpu * 1e6:.0f}" for each in asked.values())
        table.add_row(f"{kind}: the same, the server's µs of processor time", times, "", "")
        for size, ratio in ratios.items():
            title = f"{kind}: the same at {size:,} keys, against the fewest"
            table.add_row(title, f"{ratio.median:.2f}", _quartiles(ratio), "flat")


def _add_watched(table: Table, title: str, watched: Watched) -> None:
    refused = f", {watched.refused} refused" if watched.refused else ""
    table.add_row(f"{title}: opened{refused}", f"{watched.opened_in:.1f} s", "", "none refused")
    memory = f"{watched.memory_each / 1024:.1f} KB"
    table.add_row(f"{title}: memory of an idle one", memory, "", f"≤ {_MOST_MEMORY_KB} KB")
    table.add_row(f"{title}: processor while idle", f"{watched.idle_cpu * 100:.1f} %", "", "")
    delivery, call = "", ""
    if watched.beside and watched.watchers in _FAN_OUT_AIMS:
        delivery, call = (f"p99 ≤ {most} ms" for most in _FAN_OUT_AIMS[watched.watchers])
    if watched.latencies:
        table.add_row(
            f"{title}: a change reaches p50 / p99 / last",
            f"{_both(watched.latencies)} / {statistics.median(watched.slowest) * 1000:.0f} ms",
            _quartiles(Spread.of([slowest * 1000 for slowest in watched.slowest])),
            delivery,
        )
    if watched.beside:
        name = f"{title}: GetDocument beside it p50 / p99, {len(watched.beside)} calls"
        table.add_row(name, f"{_both(watched.beside)} ms", "", call)
        table.add_row(f"{title}: GetDocument between changes", f"{_both(watched.between)} ms", "", "")


def _add_writers(table: Table, kind: str, writers: Writers) -> None:
    for name, spread in (
        ("with a watcher / without", writers.watched),
        ("sequencer at work / idle", writers.numbered),
        ("both / neither", writers.both),
    ):
        title = f"{kind}: UpdateJobProgress, {name}"
        table.add_row(title, f"{spread.median:.2f}", _quartiles(spread), "")
    rates = " / ".join(f"{writers.rates[state]:.0f}" for state in (WATCHED, ALONE, UNNUMBERED))
    table.add_row(f"{kind}: the same per second, with both, sequencer alone, neither", rates, "", "")


def _both(latencies: list[float]) -> str:
    if len(latencies) < 2:  # too few to speak of percentiles
        return "-"
    return " / ".join(f"{percentile_of(latencies, percentile) * 1000:.0f}" for percentile in (50, 99))
