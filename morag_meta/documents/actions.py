"""What is done with documents that takes more than one row, for servicers and for programs without one.

Each action locks in the order owner, database, document, job, grant, keeps ``document_count`` true, and
raises ``Collision`` where a concurrent change won, so that the unit of work runs again. ``grantee`` is who
acts, for whom what is beyond their reach and shared with them for writing is there as well; a lesser grant
is ``Forbidden`` (GRANT_TOO_LOW). What does not live here: whether a change is allowed and what it writes
(``rules.py``, ``identity.py``), and how databases and grants are locked (``places.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from morag_meta.auth.narrowing import Reach, Whose, among, check_outside, owner_of
from morag_meta.auth.sharing import Grantee, Level
from morag_meta.db.unit import Row
from morag_meta.documents import rules
from morag_meta.documents.identity import (
    IDENTITIES,
    NO_DATABASE,
    Match,
    OnDuplicate,
    Outcome,
    in_item,
    same_content,
    same_document,
    scope_of,
)
from morag_meta.documents.listing import Filter, Order
from morag_meta.documents.places import hold_grants, lock_databases
from morag_meta.errors import AlreadyExists, Collision, MetaError, exists, not_found
from morag_meta.rpc.etags import check_etag
from morag_meta.uow import UnitOfWork

_NOBODY: Final = ""
"""The reach of who has no rows: what is found then is shared."""
Upload = tuple[Mapping[str, Any], OnDuplicate]
"""The fields of a document, and what is to happen if it is there already."""


def create_document(
    uow: UnitOfWork,
    owner: Whose,
    fields: Mapping[str, Any],
    on_duplicate: OnDuplicate = OnDuplicate.REJECT,
    grantee: Grantee | None = None,
) -> tuple[Row, Outcome]:
    """Register a document, or find that it is registered; gives its row and what was done.

    ``fields`` holds ``name`` and ``type`` and any of ``database_id``, ``source``, ``size_bytes``,
    ``external_id``, ``content_hash`` and ``metadata``, within the limits that the proto states. In a
    database that is shared, the document is of the database's owner instead.

    Raises:
        NotFound: the owner has no such database, or there is no such owner.
        Forbidden: it would be in no database, and the API key that asks is narrowed (KEY_NARROWED).
        AlreadyExists: it is there and is to be rejected, or two documents have its identities.
        Collision: a concurrent change won.
    """
    owners = lock_databases(uow, owner, [fields.get("database_id")], grantee)
    row, outcome = _upload(uow, owner, fields, on_duplicate, owners, grantee)
    if outcome is Outcome.CREATED:
        _count(uow, row, 1)
    hold_grants(uow, owner, owners, grantee)
    return row, outcome


def create_documents(
    uow: UnitOfWork, owner: Whose, uploads: Sequence[Upload], grantee: Grantee | None = None
) -> list[tuple[Row, Outcome]]:
    """Register several documents, one after the other.

    Raises:
        MetaError: as ``create_document``, naming the item as ``requests[<position>]``.
    """
    database_ids = [fields.get("database_id") for fields, _ in uploads]
    if not all(database_ids):
        # Several rows in no database, in an order of the caller's: two batches at once would wait for
        # each other, as those of a database do not, which lock it first.
        uow.documents.lock_owner(owner_of(owner))
    owners = lock_databases(uow, owner, database_ids, grantee)
    created: Counter[str] = Counter()
    done = []
    for position, (fields, on_duplicate) in enumerate(uploads):
        try:
            row, outcome = _upload(uow, owner, fields, on_duplicate, owners, grantee)
        except Collision:
            raise
        except MetaError as error:
            raise in_item(error, position) from error
        if outcome is Outcome.CREATED and row["database_id"]:
            created[row["database_id"]] += 1
        done.append((row, outcome))
    for database_id, count in sorted(created.items()):
        uow.databases.add_to_count(owners[database_id], database_id, count)
    hold_grants(uow, owner, owners, grantee)
    return done


def list_page(
    uow: UnitOfWork,
    reach: Whose,
    chosen: Filter,
    order: Order,
    after: Row | None,
    limit: int,
    grantee: Grantee | None,
) -> list[Row]:
    """Give at most ``limit`` documents that pass the filter, in the order, after the row ``after``.

    Where it names a database in which a grantee has none of their own, those of the owner who shares it.
    """
    rows = uow.documents.page(reach, chosen, order, after, limit)
    if rows or grantee is None or chosen.database_id in ("", NO_DATABASE):
        return rows
    owner_id = uow.grants.owner_of(grantee, chosen.database_id)
    if owner_id is None:
        return rows
    return uow.documents.page(Reach(owner_id, grantee.narrowing), chosen, order, after, limit)


def update_document(
    uow: UnitOfWork,
    reach: Whose,
    document_id: str,
    changes: Mapping[str, Any],
    *,
    etag: str = "",
    grantee: Grantee | None = None,
) -> Row:
    """Write fields of a live document; with ``etag`` only if it is as the caller knows it.

    Raises:
        NotFound: there is no such document within reach, or its owner has no such database.
        Forbidden: by a grant it would leave the databases that are shared for writing (GRANT_TOO_LOW), or
            by a narrowed API key all databases (KEY_NARROWED).
        WrongState: the document is deleted.
        AlreadyExists: another live document has one of its identities.
        Stale: it has another etag.
        Collision: a concurrent change won.
    """
    row = _lock_with_databases(uow, reach, document_id, grantee, changes.get("database_id"))
    if "database_id" in changes:
        _check_inside(reach, changes["database_id"])
    if _is_shared(row) and "database_id" in changes:
        _check_destination(uow, row, changes["database_id"], grantee)
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


def delete_document(
    uow: UnitOfWork, reach: Whose, document_id: str, *, etag: str = "", grantee: Grantee | None = None
) -> Row:
    """Delete a document so that it can be undeleted, and cancel its open ingestion job.

    Raises:
        NotFound: there is no such document within reach.
        WrongState: it is deleted already.
        Stale: it has another etag.
        Collision: a concurrent change won.
    """
    row = _lock_with_databases(uow, reach, document_id, grantee)
    check_etag(etag, row)
    written = rules.deleted(row, uow.now)
    uow.jobs.cancel_open_ingestion(row["owner_id"], row["id"], summary="the document was deleted")
    changed = uow.documents.change(row, **written)
    _count(uow, row, -1)
    return changed


def undelete_document(
    uow: UnitOfWork, reach: Whose, document_id: str, *, etag: str = "", grantee: Grantee | None = None
) -> Row:
    """Bring a deleted document back.

    Raises:
        NotFound: there is no such document within reach.
        AlreadyExists: it is live, or a live document has one of its identities.
        Stale: it has another etag.
        Collision: a concurrent change won.
    """
    row = _lock_with_databases(uow, reach, document_id, grantee)
    check_etag(etag, row)
    written = rules.undeleted(row)
    _refuse_taken(uow, row, {**row, **written})
    changed = _change(uow, row, written)
    _count(uow, changed, 1)
    return changed


def _upload(
    uow: UnitOfWork,
    owner: Whose,
    fields: Mapping[str, Any],
    on_duplicate: OnDuplicate,
    owners: Mapping[str, str],
    grantee: Grantee | None,
) -> tuple[Row, Outcome]:
    """Do one upload, but for the count of the database, which is locked where ``owners`` has it."""
    database_id = fields.get("database_id")
    _check_inside(owner, database_id)
    owner_id = owner_of(owner)
    if database_id:
        if database_id not in owners:
            uow.databases.get(owner, database_id, grantee)  # says why it was not locked
            raise Collision  # a concurrent change made or shared it
        owner_id = owners[database_id]
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


def _lock_with_databases(
    uow: UnitOfWork,
    reach: Whose,
    document_id: str,
    grantee: Grantee | None,
    destination: str | None = None,
) -> Row:
    """Lock a document after the database that it is in and the one that it is to be moved to."""
    seen = uow.documents.get(reach, document_id, grantee)
    its = among(reach, seen["owner_id"])
    owners = lock_databases(uow, its, [seen["database_id"], destination])
    row = uow.documents.lock(reach, document_id, grantee)
    if row["database_id"] != seen["database_id"]:
        raise Collision
    if destination and destination not in owners:
        raise not_found("database", destination)
    return row


def _check_inside(whose: Whose, database_id: str | None) -> None:
    """Refuse to put a document into no database where only some databases are reached."""
    if not database_id:
        check_outside(whose, "a document in no database")


def _is_shared(row: Row) -> bool:
    """Whether a document was beyond reach, and found by a grant."""
    return "granted_level" in row


def _check_destination(uow: UnitOfWork, row: Row, database_id: str | None, grantee: Grantee | None) -> None:
    """Let a grantee move a shared document only to where they may write as well, of the same owner.

    It is known to be of that owner, and is locked; now the grant on it is as well.
    """
    if grantee is None or database_id == row["database_id"]:
        return
    if database_id is None:
        Grantee(grantee.user_id, Level.OWNER).check(row["granted_level"])
    else:
        uow.databases.lock(_NOBODY, database_id, grantee)


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
