"""Whatever an event is given, each database takes what it keeps of it, and the list shows it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.field_mask_pb2 import FieldMask

from morag_meta.api_keys.actions import create_key
from morag_meta.audit.rules import Entry
from morag_meta.audit.storable import keeper_of, storable_fields, storable_text
from morag_meta.audit.writer import AuditWriter
from morag_meta.db.schema import audit_events
from moragmeta.v1 import api_keys_pb2, servers_pb2, users_pb2
from tests.audit.conftest import Listed
from tests.refusals import refused
from tests.service import Service, User

ODD_TEXTS = {
    "NUL": "a\0b",
    "a lone surrogate": "a\ud800b",
    "two that are no pair": "\udc00\ud800",
    "too long": "\U0001f600" * 70_000,
    "a break and an escape": "a\r\n\x1b[2Jb",
}
TEXTS = [field.name for field in dataclasses.fields(Entry) if field.type == "str" and field.name != "id"]
ODD_FIELDS: dict[str, Any] = {
    "nan": math.nan,
    "infinity": -math.inf,
    "large": 2**80,
    "bytes": b"\0",
    "list": [math.nan],
    "nul \0": "\0",
    "surrogate \udfff": "\ud800",
}


@pytest.mark.parametrize("what", ODD_TEXTS)
@pytest.mark.parametrize("name", TEXTS)
async def test_each_text_of_an_entry_may_hold_anything(service: Service, name: str, what: str) -> None:
    """It is written with a change and later, by each database, and nothing is dropped."""
    given: dict[str, Any] = {name: ODD_TEXTS[what]}
    entry = dataclasses.replace(Entry(event="odd.text", method="Odd.Text"), **given)
    writer = AuditWriter(service.database)
    writer.note(entry)
    await writer.flush()
    with service.database.unit_of_work() as uow:
        uow.audit.add(dataclasses.replace(entry, id=f"another {name}"))
        uow.commit()
    assert writer.dropped == 0


def test_what_was_odd_is_shown(service: Service, listed: Listed) -> None:
    """An event of odd texts and fields is read and listed like any other, cut and clean."""
    target = "01900000-0000-7000-8000-00000000000a"
    entry = Entry(event="odd.field", method="m\0" * 100, target_id=target, agent="\ud800", fields=ODD_FIELDS)
    with service.database.unit_of_work() as uow:
        uow.audit.add(entry)
        uow.commit()
    (event,) = listed(target_id=target)
    assert (event.method, event.agent) == ("m\ufffd" * 50, "\ufffd")
    told = {"nul \ufffd": "\ufffd", "surrogate \ufffd": "\ufffd"}
    untold = dict.fromkeys(("nan", "infinity", "large", "bytes", "list"))
    assert dict(event.fields.items()) == {**untold, **told}


def test_what_is_fit_is_kept_as_it_is() -> None:
    """Numbers, enums and booleans stay what they are, and so does a text within its length."""
    fit = {"a": 1, "b": 0.5, "c": True, "d": None, "e": "ROLE_ADMIN", "f": 2**63}
    assert storable_fields(fit) == fit
    assert storable_text("é\U0001f600\n", 3) == "é\U0001f600\n"


def test_each_column_says_what_it_keeps() -> None:
    """A column of a type of which nobody has decided what it keeps stops the service from starting."""
    for column in audit_events.c:
        keeper_of(column)
    for kind in (sa.Float(), sa.LargeBinary(), sa.String(), sa.BigInteger()):
        with pytest.raises(TypeError):
            keeper_of(sa.Column("new", kind))


@pytest.mark.parametrize("target", ["\0", "ada@example.org", "0" * 36, "X" * 100_000])
def test_a_target_is_an_id_or_nothing(service: Service, listed: Listed, target: str) -> None:
    """Who is refused may name anything, such as a person: it stands in the audit where it is an id alone."""
    user = service.new_user()
    with service.database.unit_of_work() as uow:
        row, secret = create_key(
            uow, service.hasher, owner_id=user.id, name="narrow", scopes=("servers:read",)
        )
        uow.commit()
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        user.channel.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=target))
    with refused("PERMISSION_DENIED", "SCOPE_MISSING"):
        delete = servers_pb2.DeleteServerRequest(id=target)
        service.channel(api_key=secret).servers.DeleteServer(delete)
    (by_role,) = listed(credential_id=user.key_id)
    (by_scope,) = listed(credential_id=row["id"])
    assert (by_role.event, by_role.target_id, by_role.target_user_id) == ("user.deactivate", "", "")
    assert (by_scope.event, by_scope.target_id) == ("server.delete", "")


def test_a_number_that_is_none_is_no_fault(user: User, listed: Listed) -> None:
    """In fields that only the server sets, and outside a mask, it is not there for anybody."""
    key = api_keys_pb2.ApiKey(name="odd", rate_limit=api_keys_pb2.RateLimit(per_second=math.nan))
    key.id = user.key_id
    request = api_keys_pb2.UpdateApiKeyRequest(api_key=key, update_mask=FieldMask(paths=["name"]))
    assert user.channel.api_keys.UpdateApiKey(request).name == "odd"
    (event,) = listed(target_id=user.key_id)
    assert set(event.fields) == {"api_key.id", "api_key.name", "update_mask"}
