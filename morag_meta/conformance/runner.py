"""Running cases: several at once, each with rows of its own, and what came of each."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from morag_meta.conformance import expect
from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Case
from morag_meta.conformance.world import World

AT_ONCE = 8
"""How many cases run at the same time: most of the slow ones only wait."""
_PATTERN = "*?["


class Verdict(enum.StrEnum):
    """What came of a case."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Outcome:
    """A case and what came of it; ``expected`` and ``seen`` say what failed, or why it did not run."""

    case: Case
    verdict: Verdict
    expected: str = ""
    seen: str = ""


def select(cases: Sequence[Case], pattern: str) -> list[Case]:
    """Choose cases by their ids ``area/name``: a part of it, or a pattern with ``*``; empty for all."""
    if not any(sign in pattern for sign in _PATTERN):
        pattern = f"*{pattern}*"
    return [case for case in cases if fnmatch.fnmatchcase(case.id, pattern)]


@contextmanager
def opened(channel: grpc.Channel, secret: str) -> Iterator[World]:
    """Prepare the users of a run, and remove them at its end.

    Raises:
        grpc.RpcError: the endpoint is away, or refuses the key.
    """
    world = World(channel, secret)
    try:
        world.open()
        yield world
    finally:
        world.close()


def run_all(world: World, cases: Sequence[Case]) -> Iterator[Outcome]:
    """Run cases, several at once and then those that run alone; give the outcomes in this order."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="conformance") as pool:
        yield from pool.map(lambda case: run_one(world, case), [case for case in cases if not case.alone])
    for case in cases:
        if case.alone:
            yield run_one(world, case)


def run_one(world: World, case: Case) -> Outcome:
    """Run one case; whatever it does, the outcome says so, without a secret."""
    if case.needs_admin and world.lacks:
        return Outcome(case, Verdict.NOT_RUN, seen=world.lacks)
    try:
        with Bench(world) as bench:
            case.attempt(bench)
    except expect.Unmet as unmet:
        expected, seen = unmet.expected, unmet.seen
    except grpc.RpcError as error:
        expected, seen = "the calls to succeed", _refusal(error)
    except Exception as error:  # noqa: BLE001 - an answer may be wrong in ways that nobody foresaw
        expected, seen = "answers that can be read", f"{type(error).__name__}: {error}"
    else:
        return Outcome(case, Verdict.PASSED)
    return Outcome(case, Verdict.FAILED, world.concealed(expected), world.concealed(seen))


def _refusal(error: grpc.RpcError) -> str:
    try:
        return str(expect.read(error))
    except expect.Unmet as unmet:
        return f"a refusal whose details are wrong: {unmet}"
