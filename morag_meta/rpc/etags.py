"""Etags (AIP-154): a resource's revision as an opaque text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morag_meta.errors import Reason, Stale


def etag_of(row: Mapping[str, Any]) -> str:
    """Give the etag of a row: its revision, quoted as HTTP quotes it."""
    return f'"{row["revision"]}"'


def check_etag(sent: str, row: Mapping[str, Any]) -> None:
    """Refuse a change that was decided on an older state; no etag sent means no check.

    Raises:
        Stale: the row has another etag (ETAG_MISMATCH).
    """
    if sent and sent != etag_of(row):
        raise changed_meanwhile()


def changed_meanwhile() -> Stale:
    """Say that a change was decided on an older state."""
    return Stale("the resource was changed meanwhile; read it again", reason=Reason.ETAG_MISMATCH)
