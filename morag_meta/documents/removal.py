"""Removing the documents of an owner who goes, a part in each transaction.

What does not live here: removing those that are left at the end (``store.py``), and a document's deletion by
its owner, which keeps the row (``actions.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.schema import documents, jobs
from morag_meta.db.statements import owned
from morag_meta.db.unit import Unit

_BATCH: Final = 500

_c = documents.c
_IDS: sa.BindParameter[Any] = sa.bindparam("document_ids", expanding=True)
_ALL = sa.select(_c.id).where(owned(documents)).order_by(_c.create_time, _c.id)
_LOCK = sa.select(_c.id).where(owned(documents), _c.id.in_(_IDS)).with_for_update(skip_locked=True)
_NEEDED = sa.select(jobs.c.document_id).where(owned(jobs), jobs.c.document_id.in_(_IDS)).distinct()
_DELETE = sa.delete(documents).where(owned(documents), _c.id.in_(_IDS))


class DocumentRemovals:
    """Removes within one unit of work."""

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def batches(self, owner_id: str) -> list[list[str]]:
        """Give the ids of every document of an owner, in parts that one transaction each may remove."""
        ids = [row["id"] for row in self._unit.all(_ALL, owner_id=owner_id)]
        return [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]

    def take(self, owner_id: str, document_ids: Sequence[str]) -> list[str]:
        """Lock documents that nobody else has locked, and give those of which no job is left."""
        given = {"owner_id": owner_id, "document_ids": document_ids}
        taken = [row["id"] for row in self._unit.all(_LOCK, **given)]
        needed = {row["document_id"] for row in self._unit.all(_NEEDED, **given)}
        return [document_id for document_id in taken if document_id not in needed]

    def remove(self, owner_id: str, document_ids: Sequence[str]) -> None:
        """Remove documents that were taken."""
        if document_ids:
            self._unit.run(_DELETE, owner_id=owner_id, document_ids=document_ids)
