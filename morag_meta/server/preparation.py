"""What is done once before serving: the secrets, the schema, and the first admin of an empty database.

The command line uses the same steps to fill a database without serving it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import structlog

from morag_meta.api_keys.actions import create_key
from morag_meta.audit.actions import note_operator
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.principal import Role
from morag_meta.config.settings import Settings
from morag_meta.db import migrate, row_security
from morag_meta.db.database import Database
from morag_meta.db.migrate import MigrationError, State
from morag_meta.db.migration_lock import refuse_missing
from morag_meta.db.url import masked
from morag_meta.server.app import database_options
from morag_meta.server.readable import require_readable
from morag_meta.server.secrets import credential_rings, root_secrets
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user

FIRST_ADMIN_EMAIL = "admin@localhost"
FIRST_ADMIN_NAME = "Administrator"
_KEY_NAME = "first key"

_log = structlog.get_logger(__name__)


def prepare(settings: Settings, *, accept_lost: bool = False) -> str | None:
    """Make ready to serve, and give the API key of the first admin if this call made one.

    With ``accept_lost`` it may be that the secrets read nothing of what the database keeps.

    Raises:
        ConfigurationError: a secret is missing or unusable, or reads nothing of what it should.
        MigrationError: the schema cannot be brought up to date, or is not current and may not be; or row
            security is asked for and does not hold.
        MetaError: the database fails.
    """
    hasher, rings = key_hasher(settings), credential_rings(settings)
    if settings.row_security:
        row_security.require_privileges(settings.database_url)
    if settings.auto_migrate and not settings.row_security:
        applied = migrate.upgrade(settings.database_url)
        if applied:
            _log.info("schema upgraded", revisions=applied)
    else:
        require_schema(settings)
    if settings.row_security:
        row_security.require(settings.database_url)
    with opened(settings) as database:
        with database.unit_of_work() as uow:
            require_readable(uow, hasher, rings(), accept_lost=accept_lost)
        with database.unit_of_work() as uow:
            uow.epoch.lock()  # the second of several starters waits here, and finds the first one's admin
            if uow.users.any():
                return None
            key = add_admin(uow, settings, email=FIRST_ADMIN_EMAIL)
            uow.commit()
            return key


def require_schema(settings: Settings) -> None:
    """Refuse a database whose schema is not exactly that of this version.

    Raises:
        MigrationError: says where it stands, and the command that mends it.
    """
    refuse_missing(settings.database_url)
    where = migrate.status(settings.database_url)
    if where.state is State.CURRENT:
        return
    fix = "run the newer version" if where.state is State.AHEAD else "run 'morag-meta db upgrade'"
    at = where.current or "none"
    raise MigrationError(f"{masked(settings.database_url)}: revision {at}, needed is {where.head}: {fix}")


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Open the database for synchronous use."""
    database = Database(database_options(settings))
    try:
        yield database
    finally:
        database.close()


def key_hasher(settings: Settings) -> KeyHasher:
    """Give what hashes API keys.

    Raises:
        ConfigurationError: the secret is missing or unusable.
    """
    return KeyHasher(root_secrets(settings).keys("api-key"))


def add_admin(uow: UnitOfWork, settings: Settings, *, email: str, name: str = FIRST_ADMIN_NAME) -> str:
    """Add an ADMIN who has an API key and no password, and give the key; the caller commits.

    Raises:
        Invalid: the email cannot be kept.
        AlreadyExists: the email is taken.
    """
    row = create_user(uow, name=name, email=email, role=Role.ADMIN)
    made, key = create_key(uow, key_hasher(settings), owner_id=row["id"], name=_KEY_NAME)
    note_operator(uow, "(first ADMIN)", "user.create", target_id=row["id"], owner_id=row["id"])
    note_operator(uow, "(first ADMIN)", "api_key.create", target_id=made["id"], owner_id=row["id"])
    return key
