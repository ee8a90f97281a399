"""``morag-meta conformance``: whether an endpoint keeps the contract, case by case.

The cases stand in ``morag_meta/conformance``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import typer

from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, print_table, say, warn
from morag_meta.cli.target import KeyFile, Target, credentials, open_channel
from morag_meta.conformance.cases import CASES
from morag_meta.conformance.runner import Outcome, Verdict, opened, run_all, select
from morag_meta.exits import ExitCode


def conformance(
    only: Annotated[
        str,
        typer.Option(
            "--only",
            metavar="PATTERN",
            help="Cases whose 'area/name' has this in it, or matches it where it has a '*'.",
        ),
    ] = "",
    target: Target = None,
    key_file: KeyFile = None,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> ExitCode:
    """Run the contract against a server: 0 all passed, 10 a case failed, 11 a case could not be run."""
    settings = read_settings(database_url)
    cases = select(CASES, only)
    if not cases:
        raise typer.BadParameter(f"no case matches {only!r}", param_hint="--only")
    ((_, secret),) = credentials(key_file)
    begun, outcomes = time.monotonic(), []
    with open_channel(target or settings.grpc_address) as channel, opened(channel, secret) as world:
        for outcome in run_all(world, cases):
            outcomes.append(outcome)
            if output is Format.JSON:
                _print_line(outcome)
    for row in world.left:
        warn(f"could not be removed: {row}")
    if output is Format.TABLE:
        print_table(("area", "case", "fact", "result"), map(_row, outcomes))
        say(_summary(outcomes, time.monotonic() - begun))
    return _exit_code(outcomes)


def _print_line(outcome: Outcome) -> None:
    case = outcome.case
    facts = {"area": case.area, "case": case.name, "fact": case.fact, "result": outcome.verdict.value}
    print_json(facts | {"expected": outcome.expected, "seen": outcome.seen})


def _row(outcome: Outcome) -> tuple[str, str, str, str]:
    case, fact, result = outcome.case, outcome.case.fact, outcome.verdict.value
    if outcome.verdict is Verdict.FAILED:
        fact += f"\n  expected: {outcome.expected}\n  seen: {outcome.seen}"
    elif outcome.seen:
        result += f": {outcome.seen}"
    return case.area, case.name, fact, result


def _summary(outcomes: list[Outcome], seconds: float) -> str:
    counts = Counter(outcome.verdict for outcome in outcomes)
    parts = ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)
    return f"{len(outcomes)} cases: {parts}, in {seconds:.1f} s"


def _exit_code(outcomes: Iterable[Outcome]) -> ExitCode:
    verdicts = {outcome.verdict for outcome in outcomes}
    if Verdict.FAILED in verdicts:
        return ExitCode.NONCONFORMING
    return ExitCode.INCOMPLETE if Verdict.NOT_RUN in verdicts else ExitCode.OK
