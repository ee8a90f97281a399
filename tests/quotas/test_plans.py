"""How the databases run the statements of quotas: what is counted is read of its owner alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from morag_meta.auth.keys import KeyHasher
from morag_meta.db import migrate
from morag_meta.db.counted import Resource
from morag_meta.db.database import Database
from morag_meta.documents.actions import create_document
from morag_meta.documents.identity import OnDuplicate
from morag_meta.ids import new_id
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend
from tests.plans import Plan, analyze
from tests.service import add_key

PEOPLE, EACH = 60, 20


@pytest.fixture(scope="module")
def full(backend: Backend) -> Iterator[tuple[Database, str]]:
    """Fill a database: sixty users with twenty documents, keys and servers each; give one of them."""
    url = backend.new_url()
    migrate.upgrade(url)
    database, hasher, owner = Database.open(url), KeyHasher(bytes(range(32))), ""
    for number in range(PEOPLE):
        with database.unit_of_work() as uow:
            owner = create_user(uow, name="Somebody", email=f"p{number}@example.org")["id"]
            for place in range(EACH):
                fields = {"name": f"d{place}", "type": "txt", "size_bytes": 1}
                create_document(uow, owner, fields, OnDuplicate.REJECT)
                add_key(uow.api_keys, hasher, owner, f"k{place}")
                uow.servers.add(new_id(), owner, name=f"s{place}", kind="QDRANT", host="h", port=1)
            uow.quotas.set(owner, {"documents": 100})
            uow.commit()
    with database.unit_of_work() as uow:  # enough that a look at a key is worth it
        for number in range(600):
            other = create_user(uow, name="Somebody", email=f"q{number}@example.org")["id"]
            uow.quotas.set(other, {"documents": 100})
        uow.commit()
    for table in ("documents", "api_keys", "servers", "quotas", "databases", "jobs"):
        analyze(database, table)
    yield database, owner
    database.close()
    backend.drop(url)


_FILLED = [Resource.DOCUMENTS, Resource.STORAGE_BYTES, Resource.API_KEYS, Resource.SERVERS]


@pytest.mark.parametrize("resource", _FILLED)
def test_what_is_counted_is_found_by_its_owner(full: tuple[Database, str], resource: Resource) -> None:
    """Counting enters an index that leads with the owner, and scans no table."""
    database, owner = full
    limits: dict[str, int] = {each.value: 1 for each in Resource}
    plan = Plan(database, lambda uow: uow.quotas.uses(owner, limits, {resource}))
    assert not plan.scans, plan.text
    assert plan.indexes, plan.text
    assert all("owner_id" in index or index.startswith(("sqlite_autoindex", "uq_")) for index in plan.indexes)


def test_limits_are_found_by_their_key(full: tuple[Database, str]) -> None:
    """Reading and locking a user's limits is one look at the primary key."""
    database, owner = full
    for work in (lambda uow: uow.quotas.get(owner), lambda uow: uow.quotas.set(owner, {"servers": 1})):
        plan = Plan(database, work)
        assert plan.indexes & {"pk_quotas", "sqlite_autoindex_quotas_1", "PRIMARY"}, plan.text
        assert not plan.scans, plan.text
