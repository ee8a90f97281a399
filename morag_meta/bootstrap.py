"""The first ADMIN: who is there when nobody is, so that a fresh service can be used at all.

Every starter may ask; one of them makes the user and the key, and only it gets the secret to print.
"""

from __future__ import annotations

from typing import Final

from morag_meta.api_keys.actions import create_key
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.principal import Role
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user

DEFAULT_EMAIL: Final = "admin@localhost"


def ensure_first_admin(
    uow: UnitOfWork, hasher: KeyHasher, *, email: str = DEFAULT_EMAIL, name: str = "Administrator"
) -> str | None:
    """Make an ADMIN without a password and a key with every scope, and give the key's secret.

    Gives None, and makes nothing, where there is any user. Commit right after, and show the secret only
    then: it is kept nowhere.

    Raises:
        Invalid: the email or the name cannot be kept.
    """
    uow.epoch.lock()  # of several starters the second waits here, and then finds the first one's user
    if uow.users.any():
        return None
    admin = create_user(uow, name=name, email=email, role=Role.ADMIN)
    _, secret = create_key(uow, hasher, owner_id=admin["id"], name="first key")
    return secret
