"""Locking the databases that documents are written in, and the grants by which they are.

What does not live here: what is done with documents (``actions.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from morag_meta.auth.narrowing import Whose, owner_of
from morag_meta.auth.sharing import Grantee
from morag_meta.errors import Forbidden, NotFound
from morag_meta.uow import UnitOfWork


def lock_databases(
    uow: UnitOfWork, owner: Whose, database_ids: Iterable[str | None], grantee: Grantee | None = None
) -> dict[str, str]:
    """Lock databases in the order of their ids, and give the owner of each that can be written.

    Those are the owner's, and what is shared with the grantee for enough: of these ``hold_grants`` locks the
    grants. Others are left out, for each document of a batch to be refused in its turn.
    """
    owners = {}
    for database_id in sorted({database_id for database_id in database_ids if database_id}):
        found = _lock(uow, owner, database_id, grantee)
        if found is not None:
            owners[database_id] = found
    return owners


def hold_grants(uow: UnitOfWork, owner: Whose, owners: Mapping[str, str], grantee: Grantee | None) -> None:
    """Lock the grants by which databases of other ``owners`` were written, which must still allow it.

    After the documents: whoever changes a document or a job by a grant locks that first, and then the grant.

    Raises:
        NotFound, Forbidden: a grant was revoked, or lowered, meanwhile.
    """
    for database_id, its_owner in owners.items():
        if grantee is not None and its_owner != owner_of(owner):
            uow.databases.lock(owner, database_id, grantee)


def _lock(uow: UnitOfWork, owner: Whose, database_id: str, grantee: Grantee | None) -> str | None:
    """Lock a database and give its owner; None where there is none for who asks, or not for writing."""
    with contextlib.suppress(NotFound):
        return str(uow.databases.lock(owner, database_id)["owner_id"])
    if grantee is not None:
        with contextlib.suppress(NotFound, Forbidden):
            seen = uow.databases.get(owner, database_id, grantee)
            return str(uow.databases.lock(seen["owner_id"], database_id)["owner_id"])
    return None
