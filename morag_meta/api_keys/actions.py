"""What is done to API keys, for the servicer, the command line and programs that embed the service.

Each works within the caller's unit of work and commits nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from morag_meta.api_keys.rules import EVERY_SCOPE, check_name
from morag_meta.auth.keys import KeyHasher, new_key, prefix_of
from morag_meta.db.unit import Row
from morag_meta.uow import UnitOfWork


def create_key(
    uow: UnitOfWork,
    hasher: KeyHasher,
    *,
    owner_id: str,
    name: str,
    scopes: Sequence[str] = (),
    expire_time: dt.datetime | None = None,
    description: str = "",
) -> tuple[Row, str]:
    """Add a key, and give its row and its secret, which is kept nowhere.

    ``scopes`` are written as they are, none meaning every scope: whoever takes them from outside checks
    them first (``rules.check_scopes``). A use is bounded by the owner's role in any case.

    Raises:
        Invalid: the name cannot be kept.
        AlreadyExists: the owner has a key of that name.
        NotFound: the owner does not exist.
    """
    secret = new_key()
    row = uow.api_keys.add(
        owner_id,
        name=check_name(name, "name"),
        description=description,
        key_hash=hasher.digest(secret),
        key_prefix=prefix_of(secret),
        scopes=list(scopes) or [EVERY_SCOPE],
        expire_time=expire_time,
    )
    return row, secret


def revoke_key(uow: UnitOfWork, reach: str, key_id: str) -> Row:
    """Revoke a key for good; one that is revoked stays as it is.

    Raises:
        NotFound: there is no such key in reach.
    """
    uow.epoch.lock()
    return revoke_locked(uow, uow.api_keys.lock(reach, key_id))


def revoke_locked(uow: UnitOfWork, row: Row) -> Row:
    """Revoke a key that is locked, and the epoch before it."""
    if row["revoke_time"] is not None:
        return row
    uow.epoch.bump()
    return uow.api_keys.change(row, revoke_time=uow.now)
