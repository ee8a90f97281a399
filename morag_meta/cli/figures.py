"""How ``morag-meta jobs stats`` shows the figures about jobs to people."""

from __future__ import annotations

import datetime as dt

from google.protobuf.duration_pb2 import Duration

from morag_meta.cli.output import print_facts, print_table
from moragmeta.v1 import jobs_pb2 as pb

_NOTHING = "-"


def print_figures(stats: pb.JobStats) -> None:
    """Print the totals, then what they are made of."""
    durations = stats.durations if stats.HasField("durations") else None
    print_facts(
        {
            "jobs": stats.total,
            "success rate": f"{stats.success_rate:.1%}" if stats.HasField("success_rate") else _NOTHING,
            "mean duration": _span(durations.mean if durations else None),
            "p50 / p95 / p99": _NOTHING
            if durations is None
            else " / ".join(map(_span, (durations.p50, durations.p95, durations.p99))),
            "oldest open job": _span(stats.oldest_open_age if stats.HasField("oldest_open_age") else None),
        }
    )
    for title, counts in (
        ("state", stats.by_state),
        ("kind", stats.by_kind),
        ("document type", stats.by_document_type),
        ("day", stats.by_day),
    ):
        print_table((title, "jobs"), [(count.key or _NOTHING, count.count) for count in counts])


def _span(duration: Duration | None) -> str:
    if duration is None:
        return _NOTHING
    span = duration.ToTimedelta()
    return f"{span.total_seconds():.3f} s" if span < dt.timedelta(minutes=1) else str(span).split(".")[0]
