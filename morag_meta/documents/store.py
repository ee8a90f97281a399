"""The statements over documents, but for those that list them (``statements.py``), and running them all.

What does not live here: what a change writes (``rules.py``), the order of locks and the counting of
documents (``actions.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import sqlalchemy as sa

from morag_meta.auth.narrowing import Reach, Whose, narrowing_of, owner_of
from morag_meta.auth.sharing import Grantee
from morag_meta.db.counted import Resource, add, counted, is_limited, note_change
from morag_meta.db.schema import database_grants as grants
from morag_meta.db.schema import documents, users
from morag_meta.db.statements import find_shared, narrow, narrowed_to, owned, reach, shared
from morag_meta.db.unit import Row, Unit
from morag_meta.documents import rules
from morag_meta.documents.identity import IDENTITIES, Match, scope_of
from morag_meta.documents.listing import Filter, Order
from morag_meta.documents.statements import page_parameters, page_statement
from morag_meta.errors import Collision, not_found
from morag_meta.ids import new_id

_ONE = documents.c.id == sa.bindparam("document_id")
_OF_DATABASE = documents.c.database_id == sa.bindparam("in_database")

_GET = sa.select(documents).where(_ONE, reach(documents))
_LOCK = sa.select(documents, is_limited(documents)).where(_ONE, reach(documents)).with_for_update()
_LOCK_IF_FREE = _GET.with_for_update(skip_locked=True)
_MANY = documents.c.id.in_(sa.bindparam("document_ids", expanding=True))
_GET_MANY = sa.select(documents).where(_MANY, reach(documents))
_SHARED = shared(documents, documents.c.database_id).where(_ONE)
_LOCK_SHARED = _SHARED.add_columns(is_limited(documents)).with_for_update()
_SHARED_MANY = shared(documents, documents.c.database_id).where(_MANY)
# The key is shared, so that on PostgreSQL the owner's other rows can still be added meanwhile.
_LOCK_OWNER = (
    sa.select(users.c.id).where(users.c.id == sa.bindparam("owner_id")).with_for_update(key_share=True)
)
_INSERT = counted(sa.insert(documents))
_COUNT_LIVE = sa.select(sa.func.count()).where(
    owned(documents), _OF_DATABASE, documents.c.state != rules.State.DELETED.value
)
_DETACH = (
    sa.update(documents)
    .where(owned(documents), _OF_DATABASE)
    .values(
        database_id=sa.null(),
        revision=documents.c.revision + 1,
        update_time=sa.bindparam("now"),
    )
)
_DELETE_ALL = sa.delete(documents).where(owned(documents))


@cache
def _change(columns: frozenset[str]) -> sa.Update:
    """Write the named columns of one document that still is as it was read."""
    return (
        sa.update(documents)
        .where(_ONE, owned(documents), documents.c.revision == sa.bindparam("old_revision"))
        .values({column: sa.bindparam(f"new_{column}") for column in sorted(columns)})
    )


@cache
def _find_same(fields: frozenset[str]) -> sa.CompoundSelect[Any]:
    """Find the live documents that have one of the named identities, each by its own unique index."""
    return sa.union_all(
        *(
            sa.select(sa.literal_column(f"'{field}'").label("field"), documents.c.id).where(
                owned(documents),
                documents.c.live_scope == sa.bindparam("scope"),
                documents.c[field] == sa.bindparam(field),
            )
            for field in sorted(fields)
        )
    )


def _settled(chosen: Filter, whose: Whose) -> tuple[Filter, Whose]:
    """Say the same of a filter and a reach by the database alone, where that is enough."""
    narrowing = narrowing_of(whose)
    if narrowing is None:
        return chosen, whose
    database_id, rest = narrowing.settle(chosen.database_id)
    return replace(chosen, database_id=database_id), Reach(owner_of(whose), rest)


class DocumentStore:
    """The documents of one unit of work.

    ``reach`` is an owner's id, or ``-`` for everybody's, or what of it an API key reaches. Rows that are
    changed were locked in the same unit; where a row turns out to have changed meanwhile, the change raises
    ``Collision``.
    """

    def __init__(self, unit: Unit) -> None:
        """Work within the unit."""
        self._unit = unit

    def get(self, reach: Whose, document_id: str, grantee: Grantee | None = None) -> Row:
        """Give a document, a deleted one too; also one beyond reach that is shared with a grantee.

        Raises:
            NotFound: there is none within reach, and none shared.
            Forbidden: it is shared, but not for what is needed (GRANT_TOO_LOW).
        """
        statement, bound = narrow(_GET, documents.c.database_id, reach)
        row = self._unit.one(statement, document_id=document_id, **bound)
        row = row or find_shared(self._unit, _SHARED, grantee, document_id=document_id)
        if row is None:
            raise not_found("document", document_id)
        return row

    def lock(self, reach: Whose, document_id: str, grantee: Grantee | None = None) -> Row:
        """Give a document as ``get`` does that nobody else changes before this unit ends, nor the grant.

        Raises:
            NotFound, Forbidden: as ``get``.
        """
        statement, bound = narrow(_LOCK, documents.c.database_id, reach)
        row = self._unit.one(statement, document_id=document_id, **bound)
        row = row or find_shared(self._unit, _LOCK_SHARED, grantee, document_id=document_id)
        if row is None:
            raise not_found("document", document_id)
        return row

    def lock_if_free(self, reach: Whose, document_id: str) -> Row | None:
        """Give a document as ``lock`` does, or None where somebody else has locked it, or it is gone."""
        statement, bound = narrow(_LOCK_IF_FREE, documents.c.database_id, reach)
        return self._unit.one(statement, document_id=document_id, **bound)

    def lock_owner(self, owner_id: str) -> None:
        """Make other units that lock the same owner wait until this one ends; no owner locks nothing."""
        self._unit.one(_LOCK_OWNER, owner_id=owner_id)

    def find_many(
        self, reach: Whose, document_ids: Collection[str], grantee: Grantee | None = None
    ) -> dict[str, Row]:
        """Give those of the documents that exist within reach, or are shared, by their ids."""
        statement, bound = narrow(_GET_MANY, documents.c.database_id, reach)
        rows = self._unit.all(statement, document_ids=list(document_ids), **bound)
        found = {row["id"]: row for row in rows}
        rest = [document_id for document_id in document_ids if document_id not in found]
        if rest and grantee is not None:
            statement, bound = narrowed_to(_SHARED_MANY, grants.c.database_id, grantee.narrowing)
            rows = self._unit.all(statement, document_ids=rest, grantee_id=grantee.user_id, **bound)
            found |= {row["id"]: row for row in rows}
        return found

    def page(self, reach: Whose, chosen: Filter, order: Order, after: Row | None, limit: int) -> list[Row]:
        """Give at most ``limit`` documents that pass the filter, in the order, after the row ``after``."""
        owner, dialect = owner_of(reach), self._unit.dialect
        chosen, reach = _settled(chosen, reach)
        page = page_statement(owner, chosen, order, dialect, following=after is not None)
        statement, bound = narrow(page, documents.c.database_id, reach)
        parameters = page_parameters(chosen, order, dialect, after)
        return self._unit.all(statement, limit=limit, **bound, **parameters)

    def find_same(self, owner_id: str, scope: str, fields: Mapping[str, Any]) -> list[Match]:
        """Find the live documents of a scope that share an identity with the fields."""
        given = {field: fields[field] for field in IDENTITIES if fields.get(field) is not None}
        rows = self._unit.all(_find_same(frozenset(given)), owner_id=owner_id, scope=scope, **given)
        return [Match(row["field"], row["id"]) for row in rows]

    def add(self, owner_id: str, fields: Mapping[str, Any]) -> Row:
        """Write a new document in the state PENDING; columns that are not given have their defaults.

        Raises:
            AlreadyExists: a live document of the scope has one of its identities.
            NotFound: there is no such owner.
        """
        row = {
            "id": new_id(),
            "owner_id": owner_id,
            "database_id": None,
            "live_scope": scope_of(fields.get("database_id")),
            "state": rules.State.PENDING.value,
            "state_before_ingestion": None,
            "state_before_delete": None,
            "version": 1,
            "ingested_version": 0,
            "chunks": 0,
            "quality": 0.0,
            "size_bytes": 0,
            "source": None,
            "external_id": None,
            "content_hash": None,
            "metadata": {},
            "last_error": None,
            "deprecation_reason": None,
            "deprecate_time": None,
            "ingest_time": None,
            "delete_time": None,
            "revision": 1,
            "create_time": self._unit.now,
            "update_time": self._unit.now,
            **fields,
        }
        grown = (Resource.DOCUMENTS, Resource.STORAGE_BYTES) if row["size_bytes"] else (Resource.DOCUMENTS,)
        add(self._unit, _INSERT, row, *grown)
        return row

    def change(self, row: Row, **changes: Any) -> Row:
        """Write columns of a document, and give the document as it now is.

        Raises:
            AlreadyExists: a live document of the scope has one of the new identities.
            Collision: the document is not as ``row`` says any more.
        """
        written = {**changes, "revision": row["revision"] + 1, "update_time": self._unit.now}
        changed = self._unit.run(
            _change(frozenset(written)),
            document_id=row["id"],
            owner_id=row["owner_id"],
            old_revision=row["revision"],
            **{f"new_{column}": value for column, value in written.items()},
        )
        if not changed:
            raise Collision
        new = {**row, **written}
        note_change(self._unit, new, *rules.grown(row, new))
        return new

    def start_ingestion(self, owner_id: str, document_id: str) -> Row:
        """The document's ingestion job starts.

        Raises:
            NotFound: there is no such document.
            WrongState: it cannot be ingested.
        """
        row = self.lock(owner_id, document_id)
        return self.change(row, **rules.started(row))

    def complete_ingestion(
        self,
        owner_id: str,
        document_id: str,
        *,
        time: dt.datetime,
        chunks: int,
        quality: float,
        metadata: Mapping[str, Any],
    ) -> Row:
        """The document's ingestion job succeeded at a time.

        Raises:
            NotFound: there is no such document.
            WrongState: it is not being ingested.
            Invalid: the metadata do not fit to those that the document has.
        """
        row = self.lock(owner_id, document_id)
        return self.change(
            row, **rules.succeeded(row, time, chunks=chunks, quality=quality, metadata=metadata)
        )

    def abandon_ingestion(self, owner_id: str, document_id: str, *, error: str | None) -> Row:
        """The document's ingestion job failed with ``error``, or was canceled (None).

        Raises:
            NotFound: there is no such document.
            WrongState: it is not being ingested.
        """
        row = self.lock(owner_id, document_id)
        return self.change(row, **rules.abandoned(row, error))

    def count_live(self, owner_id: str, database_id: str) -> int:
        """Count the documents of a database that are not deleted."""
        row = self._unit.one(_COUNT_LIVE, owner_id=owner_id, in_database=database_id)
        return 0 if row is None else int(row["count_1"])

    def detach_all(self, owner_id: str, database_id: str) -> int:
        """Take all documents out of a database, deleted ones too; gives the number of live ones.

        Live documents keep the scope of their identities, so that no two of them collide.
        """
        live = self.count_live(owner_id, database_id)
        self._unit.run(_DETACH, owner_id=owner_id, in_database=database_id, now=self._unit.now)
        return live

    def delete_all(self, owner_id: str) -> int:
        """Remove every document of an owner for good, whose jobs are gone already; gives their number."""
        return self._unit.run(_DELETE_ALL, owner_id=owner_id)
