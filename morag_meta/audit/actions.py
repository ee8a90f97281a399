"""What is noted of an operator, who works on the database itself, past the service and its credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morag_meta.audit.rules import Actor, Entry
from morag_meta.uow import UnitOfWork


def note_operator(
    uow: UnitOfWork,
    command: str,
    event: str,
    *,
    target_id: str = "",
    owner_id: str = "",
    fields: Mapping[str, Any] | None = None,
) -> None:
    """Write the row of a command of ``morag-meta``, in the transaction of what it changes.

    ``fields`` are what it set, by the paths of the method that does the same. It is not known who that is:
    whoever has the database, and what keeps it, says so.
    """
    uow.audit.add(
        Entry(
            event=event,
            method=f"morag-meta {command}",
            actor=Actor.OPERATOR,
            target_id=target_id,
            owner_id=owner_id,
            fields=fields or {},
        )
    )
