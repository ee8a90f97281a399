"""Thousands of streams: what an idle one occupies, how soon a change reaches all, and what calls feel."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.beside import Beside, Timed
from benchmarks.crowd import Crowd, Watch, watch_all, watch_each
from benchmarks.data import KIND, Filled, add_jobs, add_owners
from benchmarks.processes import Served, cpu_seconds, cpu_since, resident_bytes, served
from morag_meta.db.database import Database

_WARM_UP = 100  # streams
_SETTLE_SECONDS = 1.5
_PAUSE = 0.1  # between two changes


@dataclass(slots=True)
class Watched:
    """What some watchers of one process gave; times are seconds, memory is bytes."""

    watchers: int
    refused: int = 0
    opened_in: float = 0.0
    memory_each: float = 0.0
    idle_cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """From sending a change to its arrival at one watcher, for each change and watcher."""
    slowest: list[float] = field(default_factory=list)
    """Of each change, when the last watcher had it."""
    beside: list[float] = field(default_factory=list)
    """Latencies of calls that fell due while a change was on its way to the watchers."""
    between: list[float] = field(default_factory=list)
    """Latencies of calls that fell due while there was no change, with as many watchers."""


@dataclass(frozen=True, slots=True)
class _Case:
    """Some watchers, the job that changes for all of them, and how often it does.

    Before them come others that watch ``practice``: what a process does and allocates once is not theirs.
    A change of that job is nothing that the watchers are yet to be told.
    """

    title: str
    watches: list[Watch]
    job: str
    practice_watches: list[Watch]
    practice: str
    changes: int = 0
    calls: bool = False  # whether the changes are made once more, beside calls


def measure(
    filled: Filled, changes: int, *, crowd: float = 1.0, briefly: bool
) -> Iterator[tuple[str, Watched]]:
    """Measure each case in a process of its own, so that none inherits the memory of another.

    ``crowd`` is the share of the streams that are opened.
    """
    gc.collect()
    gc.freeze()  # a pause of the measuring process would count as one of the server
    gc.disable()
    for case in _cases(filled, changes, crowd, briefly=briefly):
        with served(filled.environment) as process:
            yield f"{filled.kind}: {case.title}", _watch(filled, process, case)


def _cases(filled: Filled, changes: int, crowd: float, *, briefly: bool) -> Iterator[_Case]:
    few, many, most = (round(crowd * count) for count in (1000, 3000, 5000))
    for count in (few, many):
        job, other = _start_jobs(filled, 2)
        one, practice = watch_each(filled.key, [job] * count), watch_each(filled.key, [other] * _WARM_UP)
        yield _Case(f"{count} WatchJob of one job", one, job, practice, other, changes)
    jobs = _start_jobs(filled, many)
    practice = watch_each(filled.key, [other] * _WARM_UP)
    yield _Case(f"{many} WatchJob of a job each", watch_each(filled.key, jobs), jobs[0], practice, other)
    [job] = _start_jobs(filled, 1)
    practice = [watch_all(filled.key)] * _WARM_UP
    for count in (few, most):
        same = [watch_all(filled.key)] * count
        yield _Case(f"{count} WatchJobs of one filter", same, job, practice, job, changes, calls=True)
    # Every filter lets the change through, so that each has it to judge, to seal and to send.
    each = [watch_all(filled.key, (KIND, f"{KIND}-{number}")) for number in range(most)]
    yield _Case(f"{most} WatchJobs of a filter each", each, job, practice, job, 0 if briefly else changes)
    if not briefly:
        watches = [watch_all(key) for key in add_owners(filled, most)]
        yield _Case(f"{most} WatchJobs of an owner each", watches, job, practice, job)


def _start_jobs(filled: Filled, count: int) -> list[str]:
    """Make jobs that nobody has reported of; give their ids."""
    with contextlib.closing(Database.open(filled.url)) as database, database.unit_of_work() as uow:
        ids = add_jobs(uow, filled.owner_id, count)
        uow.commit()
    return ids


def _watch(filled: Filled, served: Served, case: _Case) -> Watched:
    """Open the streams, wait, and then make the changes, without calls and, where wished for, beside them."""
    with contextlib.closing(Crowd(served.port, filled.key)) as crowd:
        result = _open(crowd, served, case)
        for started, latencies in _change(crowd, case):
            del started
            result.latencies += latencies
            result.slowest.append(max(latencies))
        if case.calls:
            with Beside(served.port, filled) as beside:
                crowd.listen(_PAUSE)
                spans = [(started, started + max(taken)) for started, taken in _change(crowd, case)]
            result.beside, result.between = _split(beside.timed, spans)
    return result


def _open(crowd: Crowd, served: Served, case: _Case) -> Watched:
    watches = case.watches
    crowd.open(case.practice_watches)
    crowd.change(case.practice)
    crowd.end_all()
    before = resident_bytes(served.pid)
    result = Watched(len(watches))
    started = time.perf_counter()
    crowd.open(watches)
    result.opened_in = time.perf_counter() - started
    idle_from = cpu_seconds([served.pid])
    crowd.listen(_SETTLE_SECONDS)
    result.idle_cpu = cpu_since(idle_from) / _SETTLE_SECONDS
    result.refused = crowd.refused
    result.memory_each = (resident_bytes(served.pid) - before) / len(watches)
    return result


def _change(crowd: Crowd, case: _Case) -> Iterator[tuple[float, list[float]]]:
    for _ in range(case.changes):
        yield crowd.change(case.job)
        crowd.listen(_PAUSE)


def _split(timed: Sequence[Timed], spans: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Give the latencies of the calls that fell due within one of the spans, and those of the others."""
    within: list[float] = []
    without: list[float] = []
    for due, latency in timed:
        hit = any(begin <= due <= end for begin, end in spans)
        (within if hit else without).append(latency)
    return within, without
