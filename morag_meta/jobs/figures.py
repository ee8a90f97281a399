"""The figures about jobs as the message that tells them. What is counted, and how, stands in ``stats.py``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Final

from morag_meta.jobs.listing import Filter
from morag_meta.jobs.stats import Times
from morag_meta.rpc.times import from_duration, to_duration
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import jobs_pb2 as pb

_DAY: Final = 86_400
_DEFAULT_WINDOW_MS: Final = 30 * _DAY * 1000
_STATES: Final = tuple(name.removeprefix("JOB_STATE_") for name in pb.JobState.keys()[1:])
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


def window_of(request: pb.GetJobStatsRequest) -> dt.timedelta:
    """Give since how long ago the jobs that count were made.

    Raises:
        Invalid: it is out of its range.
    """
    given = from_duration(request, "window", path="", least=1, most=366 * _DAY)
    return (_DEFAULT_WINDOW_MS if given is None else given) * _MILLISECOND


def figures_of(uow: UnitOfWork, chosen: Filter, window: dt.timedelta) -> pb.JobStats:
    """Give the figures about the jobs of a filter that were made within a window."""
    since = uow.queue.now() - window
    by_state = uow.job_stats.counts(chosen, since, "state")
    finished, failed = by_state.get("FINISHED", 0), by_state.get("FAILED", 0)
    age = uow.job_stats.oldest_open_age(chosen)
    return pb.JobStats(
        by_state=_in_order({state: by_state[state] for state in _STATES if state in by_state}.items()),
        by_kind=_most_frequent(uow.job_stats.counts(chosen, since, "kind")),
        by_document_type=_most_frequent(uow.job_stats.counts(chosen, since, "document_type")),
        by_day=_in_order(sorted(uow.job_stats.counts(chosen, since, "day").items())),
        total=sum(by_state.values()),
        success_rate=finished / (finished + failed) if finished + failed else None,
        durations=_durations(uow.job_stats.times(chosen, since)),
        oldest_open_age=None if age is None else to_duration(age / _MILLISECOND),
    )


def _most_frequent(counts: Mapping[str, int]) -> list[pb.JobCount]:
    # Databases do not agree on the order of texts.
    return _in_order(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _in_order(counts: Iterable[tuple[str, int]]) -> list[pb.JobCount]:
    return [pb.JobCount(key=key, count=count) for key, count in counts]


def _durations(times: Times | None) -> pb.JobDurations | None:
    if times is None:
        return None
    percentiles = {f"p{percent}": to_duration(value) for percent, value in times.percentiles.items()}
    return pb.JobDurations(mean=to_duration(times.mean), **percentiles)
