"""Which waiting jobs a worker is given: decisions without input or output.

Rows come from the stores; who waits for which jobs stands in ``openings.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from morag_meta.auth.narrowing import Narrowing

EVERYBODY: Final = "-"
"""The owner of whom a worker of everybody's jobs asks."""

_STATES: Final[Mapping[str | None, tuple[str, ...]]] = {
    None: ("PENDING", "WAITING_FOR_REMOTE_WORKER"),
    "LOCAL": ("PENDING",),
    "REMOTE": ("WAITING_FOR_REMOTE_WORKER",),
}


@dataclass(frozen=True, slots=True)
class Appetite:
    """Which jobs somebody takes; empty kinds or types let every job through."""

    owner_id: str
    states: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    document_types: tuple[str, ...] = ()
    narrowing: Narrowing | None = None

    def takes(self, job: Mapping[str, Any]) -> bool:
        """Whether a job is one of these; what its ``server_id`` does not say is taken for none."""
        within = self.narrowing is None or self.narrowing.covers(job["database_id"], job.get("server_id"))
        return within and self.wants(job)

    def wants(self, job: Mapping[str, Any]) -> bool:
        """Whether a job, by its owner, state, kind and document type, is one of these, if it is in reach."""
        return (
            self.owner_id in (EVERYBODY, job["owner_id"])
            and job["state"] in self.states
            and (not self.kinds or job["kind"] in self.kinds)
            and (not self.document_types or job["document_type"] in self.document_types)
        )


def appetite(
    worker: Mapping[str, Any],
    kinds: Sequence[str],
    document_types: Sequence[str],
    *,
    owner_id: str,
    may_serve_everyone: bool,
    narrowing: Narrowing | None = None,
) -> Appetite | None:
    """Say which jobs a worker takes in one call, or None where it takes none at all.

    Everybody's jobs are for a worker that registered for them, while its key still allows it.
    """
    both_kinds = _intersection(worker["kinds"], kinds)
    both_types = _intersection(worker["document_types"], document_types)
    if both_kinds is None or both_types is None:
        return None
    everyone = may_serve_everyone and worker["serves_everyone"]
    states = _STATES[worker["execution"]]
    return Appetite(EVERYBODY if everyone else owner_id, states, both_kinds, both_types, narrowing)


def _intersection(taken: Collection[str], asked: Collection[str]) -> tuple[str, ...] | None:
    """Give what is in both, where an empty collection holds everything; None where nothing is."""
    if not taken or not asked:
        return tuple(sorted({*taken, *asked}))
    return tuple(sorted({*taken} & {*asked})) or None
