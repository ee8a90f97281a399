"""Sharing a database and ending that, for the servicer, the command line and programs that embed the service.

Each works within the caller's unit of work and commits nothing. The database is locked first, so that a
grant is never made on one that goes.
"""

from __future__ import annotations

from morag_meta.auth.sharing import Grantee
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.grants.rules import check_grantee
from morag_meta.uow import UnitOfWork


def grant_access(
    uow: UnitOfWork,
    reach: str,
    database_id: str,
    grantee_id: str,
    *,
    level: str,
    grantor_id: str | None = None,
    caller: Grantee | None = None,
) -> Row:
    """Share a database with a user at a level, whatever it was before, and give the grant.

    ``caller`` is who asks, for whom a database that is only shared with them is not missing.

    Raises:
        NotFound: there is no such database within reach, or no such user.
        Forbidden: the database is only shared with the caller (GRANT_TOO_LOW).
        Invalid: the user is the database's owner.
        Collision: a concurrent change won.
    """
    database = uow.databases.lock(reach, database_id, caller)
    check_grantee(database["owner_id"], grantee_id)
    uow.users.get(EVERYONE, grantee_id)
    found = uow.grants.find(database["owner_id"], database_id, grantee_id)
    if found is None:
        return uow.grants.add(database["owner_id"], database_id, grantee_id, level, grantor_id)
    return found if found["level"] == level else uow.grants.change(found, level, grantor_id)


def revoke_access(
    uow: UnitOfWork, reach: str, database_id: str, grantee_id: str, *, caller: Grantee | None = None
) -> None:
    """End a grant, and with it the streams that need it; ``caller`` is as in ``grant_access``.

    Raises:
        NotFound: there is no such database within reach, or no such grant on it.
        Forbidden: the database is only shared with the caller (GRANT_TOO_LOW).
    """
    uow.epoch.lock()
    database = uow.databases.lock(reach, database_id, caller)
    uow.grants.remove(database["owner_id"], database_id, grantee_id)
    uow.epoch.bump()


def give_up_access(uow: UnitOfWork, grantee: Grantee, database_id: str) -> bool:
    """End the grant of a user who no longer wants it; say whether there was one."""
    uow.epoch.lock()
    owner_id = uow.grants.owner_of(grantee, database_id)
    if owner_id is None:
        return False
    revoke_access(uow, owner_id, database_id, grantee.user_id)
    return True
