"""What a measured database holds: one user with a key, documents of realistic size, and running jobs."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from typing import Any

from morag_meta.auth.keys import KeyHasher, new_key, prefix_of
from morag_meta.auth.passwords import hash_password
from morag_meta.auth.secret import RootSecret
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.jobs import actions
from morag_meta.uow import UnitOfWork
from morag_meta.users.actions import create_user

SECRET = secrets.token_urlsafe(48)
CREDENTIALS = "b1:" + base64.b64encode(secrets.token_bytes(32)).decode()
PASSWORD = secrets.token_urlsafe(16)

KIND = "MEASURE"
"""The kind of all jobs."""
_DOCUMENTS = 2000
_JOBS = 256
_LEASE_MS = 3_600_000  # longer than a run, so that nothing changes that is not meant to


@dataclass(frozen=True, slots=True)
class Filled:
    """A filled database, and what a caller needs to know of it."""

    kind: str
    url: str
    owner_id: str
    email: str
    key: str
    documents: list[str]
    jobs: list[str]
    """Jobs that are PROCESSING in attempt 1."""

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a server of it."""
        return {
            "MORAG_DATABASE_URL": self.url,
            "MORAG_SECRET_KEY": SECRET,
            "MORAG_CREDENTIAL_KEYS": CREDENTIALS,
            "MORAG_LOG_FORMAT": "json",
        }


def fill(kind: str, url: str) -> Filled:
    """Migrate an empty database and fill it."""
    migrate.upgrade(url)
    database = Database.open(url)
    try:
        with database.unit_of_work() as uow:
            filled = _fill(uow, kind, url)
            uow.commit()
    finally:
        database.close()
    return filled


def _fill(uow: UnitOfWork, kind: str, url: str) -> Filled:
    email = "bench@example.test"
    hashed = hash_password(PASSWORD, cost=10)
    owner = create_user(uow, name="Bench", email=email, password_hash=hashed)["id"]
    key = _add_key(uow, owner)
    documents = [uow.documents.add(owner, _document(number))["id"] for number in range(_DOCUMENTS)]
    return Filled(kind, url, owner, email, key, documents, add_jobs(uow, owner, _JOBS))


def _add_key(uow: UnitOfWork, owner: str) -> str:
    key = new_key()
    uow.api_keys.add(
        owner,
        name="bench",
        description="",
        key_hash=KeyHasher(RootSecret.from_text(SECRET).subkey("api-key")).digest(key),
        key_prefix=prefix_of(key),
        scopes=["*"],
        expire_time=None,
    )
    return key


def add_owners(filled: Filled, count: int) -> list[str]:
    """Make users who own nothing yet; give a key of each."""
    database = Database.open(filled.url)
    try:
        with database.unit_of_work() as uow:
            emails = (f"owner-{number}@example.test" for number in range(count))
            owners = [create_user(uow, name="Owner", email=email)["id"] for email in emails]
            keys = [_add_key(uow, owner) for owner in owners]
            uow.commit()
    finally:
        database.close()
    return keys


def add_jobs(uow: UnitOfWork, owner: str, count: int) -> list[str]:
    """Make jobs of no document and start them; give their ids."""
    ids = [actions.create_job(uow, owner, kind=KIND)["id"] for _ in range(count)]
    for id in ids:
        actions.start_job(uow, owner, id, lease_ms=_LEASE_MS)
    return ids


def _document(number: int) -> dict[str, Any]:
    return {
        "name": f"report-{number:05}.pdf",
        "type": "pdf",
        "source": f"s3://archive/reports/2024/report-{number:05}.pdf",
        "size_bytes": 120_000 + number,
        "external_id": f"ext-{number:05}",
        "content_hash": f"sha256:{number:064x}",
        "metadata": {"language": "en", "pages": number % 90, "tags": ["annual", "finance"]},
    }
