"""Exports: everything of one user, nothing of another, and no secret."""

from __future__ import annotations

import json
import re
from typing import Any

import sqlalchemy as sa

from morag_meta.auth.principal import Role
from morag_meta.db.schema import metadata
from morag_meta.exports.store import TABLES, WITHHELD
from moragmeta.v1 import exports_pb2 as pb
from tests.quotas.ways import a_document, a_job, a_server, set_limits
from tests.refusals import refused
from tests.service import Channel, Service, User
from tests.users.conftest import PASSWORD, NewPerson

_SECRET = re.compile(r"hash|sealed|token|secret|fingerprint|password")
_NO_SECRETS = {"documents.content_hash"}  # which the user says of the own content


def _export(channel: Channel, owner_id: str = "") -> list[tuple[str, dict[str, Any]]]:
    answers = channel.exports.ExportUserData(pb.ExportUserDataRequest(owner_id=owner_id))
    return [(answer.table, json.loads(answer.json)) for answer in answers]


def test_every_column_that_sounds_like_a_secret_is_withheld() -> None:
    """A new column with such a name is withheld, or stands here as no secret."""
    told = {
        f"{name}.{column.name}"
        for name in TABLES
        for column in metadata.tables[name].c
        if _SECRET.search(column.name)
    }
    withheld = {f"{name}.{column}" for name, columns in WITHHELD.items() for column in columns}
    assert told - _NO_SECRETS == withheld


def _counts(service: Service, owner_id: str) -> dict[str, int]:
    """Count the rows of a user in every table that is exported."""
    counts = {}
    with service.database.engine.connect() as connection:
        for name in TABLES:
            table = metadata.tables[name]
            owner = table.c.id if name == "users" else table.c.owner_id
            rows = sa.select(sa.func.count()).select_from(table).where(owner == owner_id)
            counts[name] = connection.execute(rows).scalar_one()
    return counts


def test_an_export_holds_every_row_of_the_user_and_of_nobody_else(
    service: Service, new_person: NewPerson
) -> None:
    """Each table gives as many rows as it has of the user, over several pages, as they stand in it."""
    person = new_person()
    user = User(person.id, person.email, Role.USER, person.key, "", service.channel(api_key=person.key))
    a_server(user)
    for _ in range(101):
        a_document(user)
    a_job(user, document_id=a_document(user).id)
    set_limits(service, user, servers=3)
    found = _export(person.channel)
    for name, count in _counts(service, person.id).items():
        assert sum(of == name for of, _ in found) == count, name
    assert {row.get("owner_id", row["id"] if of == "users" else None) for of, row in found} == {person.id}
    documents = [row for of, row in found if of == "documents"]
    assert len({row["id"] for row in documents}) == 102
    ((_, own),) = [(of, row) for of, row in found if of == "users"]
    assert (own["email"], own["name"]) == (person.email, own["name"])
    assert own["create_time"].endswith("Z")
    admin = new_person(Role.ADMIN)
    assert len(_export(admin.channel, person.id)) == len(found)


def test_an_export_shows_no_secret(service: Service, new_person: NewPerson) -> None:
    """Neither a secret that was ever given out nor a hash that is kept stands in it."""
    person = new_person()
    text = json.dumps(_export(person.channel))
    with service.database.engine.connect() as connection:
        hashes = [
            value
            for name, columns in WITHHELD.items()
            for row in connection.execute(sa.select(*(metadata.tables[name].c[each] for each in columns)))
            for value in row
            if value
        ]
    assert hashes
    for secret in (PASSWORD, person.key, person.login.refresh_token, person.login.access_token, *hashes):
        assert secret not in text


def test_only_oneself_or_an_admin_exports_with_a_session(
    service: Service, user: User, new_person: NewPerson
) -> None:
    """Another user's data do not exist, and an API key exports nothing."""
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        _export(new_person().channel, user.id)
    for channel in (user.channel, service.admin.channel):
        with refused("PERMISSION_DENIED", "SESSION_REQUIRED"):
            _export(channel)
