"""What is done to API keys, for the servicer, the command line and programs that embed the service.

Each works within the caller's unit of work and commits nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from morag_meta.api_keys.rules import EVERY_SCOPE, check_name, check_not_revoked, check_rotatable, grace_end
from morag_meta.api_keys.store import INHERITED
from morag_meta.auth.keys import KeyHasher, new_key, prefix_of
from morag_meta.auth.narrowing import Narrowing, Reach, columns_of
from morag_meta.auth.principal import Role
from morag_meta.auth.sharing import Grantee, Level
from morag_meta.db.counted import Resource, note_growth
from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.ids import new_id
from morag_meta.uow import UnitOfWork


def create_key(
    uow: UnitOfWork,
    hasher: KeyHasher,
    *,
    owner_id: str,
    name: str,
    scopes: Sequence[str] = (),
    **traits: Any,
) -> tuple[Row, str]:
    """Add a key, and give its row and its secret, which is kept nowhere.

    ``scopes`` are written as they are, none meaning every scope, and so are ``traits``, further columns:
    whoever takes them from outside checks them first (``rules``). A use is bounded by the owner's role in
    any case.

    Raises:
        Invalid: the name cannot be kept.
        AlreadyExists: the owner has a key of that name.
        NotFound: the owner does not exist.
    """
    secret = new_key()
    row = uow.api_keys.add(
        owner_id,
        name=check_name(name, "name"),
        key_hash=hasher.digest(secret),
        key_prefix=prefix_of(secret),
        scopes=list(scopes) or [EVERY_SCOPE],
        **traits,
    )
    return row, secret


def narrowing_columns(
    uow: UnitOfWork,
    owner: Row,
    database_ids: Sequence[str],
    server_ids: Sequence[str],
    bound: Narrowing | None = None,
) -> dict[str, Any]:
    """Give the columns of what a key of an owner is narrowed to; of neither any it is not.

    What it names must be there and in the owner's reach, and within what ``bound``, the narrowing of the key
    that makes it, reaches. Once a key is made it is not looked at again.

    Raises:
        NotFound: something is not.
    """
    is_admin = Role[owner["role"]] is Role.ADMIN
    reach = Reach(EVERYONE if is_admin else owner["id"], bound)
    grantee = None if is_admin else Grantee(owner["id"], Level.READER, bound)
    for database_id in sorted(set(database_ids)):
        uow.databases.get(reach, database_id, grantee)
    for server_id in sorted(set(server_ids)):
        uow.servers.get(reach, server_id)
    return columns_of(database_ids, server_ids)


def lock_key(uow: UnitOfWork, reach: str, key_id: str) -> Row:
    """Lock a key that may lose its standing, and the epoch before it.

    Raises:
        NotFound: there is no such key in reach.
    """
    uow.epoch.lock()
    return uow.api_keys.lock(reach, key_id)


def revoke(uow: UnitOfWork, row: Row) -> Row:
    """Revoke a locked key for good, and free its name; one that is revoked stays as it is."""
    if row["revoke_time"] is not None:
        return row
    uow.epoch.bump()
    return uow.api_keys.change(row, revoke_time=uow.now, former_name=row["name"])


def disable(uow: UnitOfWork, row: Row) -> Row:
    """Disable a locked key; one that is disabled stays as it is.

    Raises:
        WrongState: it is revoked.
    """
    check_not_revoked(row)
    if row["disable_time"] is not None:
        return row
    uow.epoch.bump()
    return uow.api_keys.change(row, disable_time=uow.now)


def enable(uow: UnitOfWork, row: Row) -> Row:
    """Let a locked key work again; one that is not disabled stays as it is.

    Raises:
        WrongState: it is revoked.
    """
    check_not_revoked(row)
    if row["disable_time"] is None:
        return row
    uow.epoch.bump()
    return uow.api_keys.change(row, disable_time=None)


def rotate(uow: UnitOfWork, hasher: KeyHasher, row: Row, grace: dt.timedelta) -> tuple[Row, Row, str]:
    """Replace a locked key by one that does the same; give the new row, the old one, and the new secret.

    Raises:
        WrongState: it does not work, or was replaced already. That replaced keys in their grace pass a quota
            shows at the commit.
    """
    check_rotatable(row, uow.now)
    uow.epoch.bump()
    had = uow.quotas.count(row["owner_id"], Resource.API_KEYS)
    end = grace_end(row, grace, uow.now)
    successor_id = new_id()
    old = uow.api_keys.change(row, former_name=row["name"], successor_id=successor_id, expire_time=end)
    secret = new_key()
    new = uow.api_keys.add(
        row["owner_id"],
        id=successor_id,
        predecessor_id=row["id"],
        key_hash=hasher.digest(secret),
        key_prefix=prefix_of(secret),
        **{name: row[name] for name in INHERITED},
    )
    if uow.quotas.count(row["owner_id"], Resource.API_KEYS) > had:
        note_growth(uow, row["owner_id"], Resource.API_KEYS)
    return new, old, secret
