"""What is done with documents that takes more than one row, for servicers and for programs without one.

Each action locks in the order owner, database, document, job, keeps ``document_count`` true, and raises
``Collision`` where a concurrent change won, so that the unit of work runs again. What does not live
here: whether a change is allowed and what it writes (``rules.py``, ``identity.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from morag_meta.db.unit import Row
from morag_meta.documents import rules
from morag_meta.documents.identity import (
    IDENTITIES,
    Match,
    OnDuplicate,
    Outcome,
    in_item,
    same_content,
    same_document,
    scope_of,
)
from morag_meta.errors import AlreadyExists, Collision, MetaError, NotFound, exists, not_found
from morag_meta.rpc.etags import check_etag
from morag_meta.uow import UnitOfWork

Upload = tuple[Mapping[str, Any], OnDuplicate]
"""The fields of a document, and what is to happen if it is there already."""


def create_document(
    uow: UnitOfWork,
    owner_id: str,
    fields: Mapping[str, Any],
    on_duplicate: OnDuplicate = OnDuplicate.REJECT,
) -> tuple[Row, Outcome]:
    """Register a document, or find that it is registered; gives its row and what was done.

    ``fields`` holds ``name`` and ``type`` and any of ``database_id``, ``source``, ``size_bytes``,
    ``external_id``, ``content_hash`` and ``metadata``, within the limits that the proto states.

    Raises:
        NotFound: the owner has no such database, or there is no such owner.
        AlreadyExists: it is there and is to be rejected, or two documents have its identities.
        Collision: a concurrent change won.
    """
    missing = _lock_databases(uow, owner_id, [fields.get("database_id")])
    row, outcome = _upload(uow, owner_id, fields, on_duplicate, missing)
    if outcome is Outcome.CREATED and row["database_id"]:
        uow.databases.add_to_count(owner_id, row["database_id"], 1)
    return row, outcome


def create_documents(uow: UnitOfWork, owner_id: str, uploads: Sequence[Upload]) -> list[tuple[Row, Outcome]]:
    """Register several documents, one after the other.

    Raises:
        MetaError: as ``create_document``, naming the item as ``requests[<position>]``.
    """
    database_ids = [fields.get("database_id") for fields, _ in uploads]
    if not all(database_ids):
        # Several rows in no database, in an order of the caller's: two batches at once would wait for
        # each other, as those of a database do not, which lock it first.
        uow.documents.lock_owner(owner_id)
    missing = _lock_databases(uow, owner_id, database_ids)
    created: Counter[str] = Counter()
    done = []
    for position, (fields, on_duplicate) in enumerate(uploads):
        try:
            row, outcome = _upload(uow, owner_id, fields, on_duplicate, missing)
        except Collision:
            raise
        except MetaError as error:
            raise in_item(error, position) from error
        if outcome is Outcome.CREATED and row["database_id"]:
            created[row["database_id"]] += 1
        done.append((row, outcome))
    for database_id, count in sorted(created.items()):
        uow.databases.add_to_count(owner_id, database_id, count)
    return done


def update_document(
    uow: UnitOfWork,
    reach: str,
    document_id: str,
    changes: Mapping[str, Any],
    *,
    etag: str = "",
) -> Row:
    """Write fields of a live document; with ``etag`` only if it is as the caller knows it.

    Raises:
        NotFound: there is no such document within reach, or its owner has no such database.
        WrongState: the document is deleted.
        AlreadyExists: another live document has one of its identities.
        Stale: it has another etag.
        Collision: a concurrent change won.
    """
    row = _lock_with_databases(uow, reach, document_id, changes.get("database_id"))
    check_etag(etag, row)
    written = rules.updated(row, changes)
    if not written:
        return row
    _refuse_taken(uow, row, {**row, **written})
    changed = _change(uow, row, written)
    if changed["database_id"] != row["database_id"]:
        _count(uow, row, -1)
        _count(uow, changed, 1)
    return changed


def delete_document(uow: UnitOfWork, reach: str, document_id: str, *, etag: str = "") -> Row:
    """Delete a document so that it can be undeleted, and cancel its open ingestion job.

    Raises:
        NotFound: there is no such document within reach.
        WrongState: it is deleted already.
        Stale: it has another etag.
        Collision: a concurrent change won.
    """
    row = _lock_with_databases(uow, reach, document_id)
    check_etag(etag, row)
    written = rules.deleted(row, uow.now)
    uow.jobs.cancel_open_ingestion(row["owner_id"], row["id"], summary="the document was deleted")
    changed = uow.documents.change(row, **written)
    _count(uow, row, -1)
    return changed


def undelete_document(uow: UnitOfWork, reach: str, document_id: str, *, etag: str = "") -> Row:
    """Bring a deleted document back.

    Raises:
        NotFound: there is no such document within reach.
        AlreadyExists: it is live, or a live document has one of its identities.
        Stale: it has another etag.
        Collision: a concurrent change won.
    """
    row = _lock_with_databases(uow, reach, document_id)
    check_etag(etag, row)
    written = rules.undeleted(row)
    _refuse_taken(uow, row, {**row, **written})
    changed = _change(uow, row, written)
    _count(uow, changed, 1)
    return changed


def _upload(
    uow: UnitOfWork,
    owner_id: str,
    fields: Mapping[str, Any],
    on_duplicate: OnDuplicate,
    missing: frozenset[str],
) -> tuple[Row, Outcome]:
    """Do one upload, but for the count of the database, which is locked unless it is missing."""
    database_id = fields.get("database_id")
    if database_id in missing:
        raise not_found("database", database_id)
    scope = scope_of(database_id)
    match = same_document(uow.documents.find_same(owner_id, scope, fields))
    if match is None:
        try:
            return uow.documents.add(owner_id, fields), Outcome.CREATED
        except AlreadyExists:
            raise Collision from None  # a concurrent upload won; the next run finds it
    if on_duplicate is OnDuplicate.REJECT:
        raise exists("document", match.field, match.id)
    row = _still_same(uow.documents.lock(owner_id, match.id), match, scope, fields)
    if on_duplicate is OnDuplicate.RETURN_EXISTING or same_content(row, fields):
        return row, Outcome.EXISTING
    written = rules.new_version(row, fields)
    uow.jobs.cancel_open_ingestion(owner_id, row["id"], summary=f"superseded by version {written['version']}")
    return _change(uow, row, written), Outcome.NEW_VERSION


def _still_same(row: Row, match: Match, scope: str, fields: Mapping[str, Any]) -> Row:
    """Give the row that was found, unless it lost the identity before it was locked."""
    if row["live_scope"] != scope or row[match.field] != fields[match.field]:
        raise Collision
    return row


def _lock_databases(uow: UnitOfWork, owner_id: str, database_ids: Iterable[str | None]) -> frozenset[str]:
    """Lock databases of an owner in the order of their ids, and give those that are missing."""
    missing = set()
    for database_id in sorted({database_id for database_id in database_ids if database_id}):
        try:
            uow.databases.lock(owner_id, database_id)
        except NotFound:
            missing.add(database_id)
    return frozenset(missing)


def _lock_with_databases(
    uow: UnitOfWork, reach: str, document_id: str, destination: str | None = None
) -> Row:
    """Lock a document after the database that it is in and the one that it is to be moved to."""
    seen = uow.documents.get(reach, document_id)
    missing = _lock_databases(uow, seen["owner_id"], [seen["database_id"], destination])
    row = uow.documents.lock(reach, document_id)
    if row["database_id"] != seen["database_id"]:
        raise Collision
    if destination in missing:
        raise not_found("database", destination or "")
    return row


def _refuse_taken(uow: UnitOfWork, row: Row, new: Row) -> None:
    """Refuse identities that another live document has, naming it."""
    if all(new[column] == row[column] for column in ("live_scope", *IDENTITIES)):
        return
    for match in uow.documents.find_same(row["owner_id"], new["live_scope"], new):
        if match.id != row["id"]:
            raise exists("document", match.field, match.id)


def _change(uow: UnitOfWork, row: Row, written: Mapping[str, Any]) -> Row:
    try:
        return uow.documents.change(row, **written)
    except AlreadyExists:
        raise Collision from None  # a concurrent change took an identity; the next run names it


def _count(uow: UnitOfWork, row: Row, delta: int) -> None:
    if row["database_id"]:
        uow.databases.add_to_count(row["owner_id"], row["database_id"], delta)
