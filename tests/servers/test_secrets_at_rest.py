"""A server's secrets go in and never come out: not in an answer, not in the store, not in the log."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.message import Message

from morag_meta.auth.credentials import CredentialRing
from morag_meta.db.schema import metadata
from morag_meta.servers.secrets import reveal
from moragmeta.v1 import servers_pb2 as pb
from tests.refusals import refused
from tests.servers.conftest import a_server, get, update
from tests.service import CREDENTIAL_KEYS, Service, User

PASSWORD = "open-sesame-4711"
API_KEY = "key-of-the-kingdom-0815"
SECRETS = (PASSWORD, API_KEY)


def _request(name: str = "main") -> pb.CreateServerRequest:
    server = a_server(name=name, password=PASSWORD, api_key=API_KEY)
    return pb.CreateServerRequest(server=server, request_id="secret-1")


def _is_silent(answer: Message | str | bytes) -> bool:
    raw = answer.SerializeToString() if isinstance(answer, Message) else answer
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return not any(secret in text for secret in SECRETS)


def test_no_answer_holds_a_secret(user: User) -> None:
    """Create, its replay, Get, List and Update show flags in place of the secrets."""
    stub = user.channel.servers
    created = stub.CreateServer(_request())
    answers = [
        created,
        stub.CreateServer(_request()),
        get(user, created.id),
        stub.ListServers(pb.ListServersRequest()),
        update(user, pb.Server(id=created.id, password=PASSWORD, api_key=API_KEY), "password", "api_key"),
        update(user, pb.Server(id=created.id, name="renamed")),
    ]
    assert all(map(_is_silent, answers))
    shown = get(user, created.id)
    assert (shown.has_password, shown.has_api_key) == (True, True)
    assert not shown.HasField("password")
    assert not shown.HasField("api_key")


def test_no_refusal_and_no_log_line_holds_a_secret(user: User, capfd: pytest.CaptureFixture[str]) -> None:
    """A refused create says what is wrong without a word of the secrets that it carried."""
    user.channel.servers.CreateServer(_request())
    taken = a_server(password=PASSWORD, api_key=API_KEY)
    with refused("ALREADY_EXISTS") as conflict:
        user.channel.servers.CreateServer(pb.CreateServerRequest(server=taken))
    too_long = a_server(name="long", password=PASSWORD + "x" * 255, api_key=API_KEY)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", "server.password") as violation:
        user.channel.servers.CreateServer(pb.CreateServerRequest(server=too_long))
    assert _is_silent(conflict.message)
    assert _is_silent(violation.message)
    captured = capfd.readouterr()
    assert _is_silent(captured.out + captured.err)


def test_the_store_holds_no_secret_in_the_clear(service: Service, user: User) -> None:
    """Neither a column of any table nor a byte of SQLite's files shows what was sent."""
    created = user.channel.servers.CreateServer(_request())
    with service.database.engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(table.select()):
                assert _is_silent(repr(tuple(row)))
    with service.database.unit_of_work() as uow:
        sealed = uow.servers.get(user.id, created.id)
    assert sealed["password_sealed"].startswith("v1.t1.")
    assert sealed["api_key_sealed"].startswith("v1.t1.")
    ring = CredentialRing.parse(CREDENTIAL_KEYS)
    assert reveal(ring, sealed) == {"password": PASSWORD, "api_key": API_KEY}
    if service.kind == "sqlite":
        for file in Path(service.url.removeprefix("sqlite:///")).parent.iterdir():
            assert _is_silent(file.read_bytes())
