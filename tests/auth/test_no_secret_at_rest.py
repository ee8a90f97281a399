"""That no secret of any kind stands in the database: every row of every table is searched."""

from __future__ import annotations

import base64

import sqlalchemy as sa

from morag_meta.db.schema import metadata
from moragmeta.v1 import api_keys_pb2, servers_pb2, users_pb2
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import CREDENTIAL_KEYS, SECRET_KEY, Service, serving

PASSWORD, NEW_PASSWORD = "correct horse battery", "another horse battery"
WRONG_PASSWORD = "wrong zebra battery"
SERVER_PASSWORD, SERVER_KEY = "tr0ub4dor-and-three", "pinecone-key-0815"


def _forms(secret: str) -> set[str]:
    """Give the secret as text, hexadecimal and base64, in the ways in which it might slip in."""
    raw = secret.encode()
    return {
        secret,
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }


def _use_every_secret(service: Service) -> list[str]:
    """Register, log in, refresh, make a key and a server, change the password; give all the secrets."""
    anybody = service.channel()
    with refused("UNAUTHENTICATED", "LOGIN_FAILED"):  # it goes into the audit, and the password does not
        anybody.users.Login(users_pb2.LoginRequest(email="nobody@example.org", password=WRONG_PASSWORD))
    anybody.users.RegisterUser(
        users_pb2.RegisterUserRequest(
            name="Somebody", email="somebody@example.org", password=PASSWORD, request_id="register"
        )
    )
    login = users_pb2.LoginRequest(email="somebody@example.org", password=PASSWORD)
    first, second = anybody.users.Login(login), anybody.users.Login(login)
    refreshed = anybody.users.RefreshToken(users_pb2.RefreshTokenRequest(refresh_token=second.refresh_token))
    channel = service.channel(token=first.access_token)
    made = channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(api_key=api_keys_pb2.ApiKey(name="k"), request_id="key")
    )
    server = servers_pb2.Server(
        name="s",
        kind=servers_pb2.SERVER_KIND_PINECONE,
        host="h",
        port=1,
        password=SERVER_PASSWORD,
        api_key=SERVER_KEY,
    )
    channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server, request_id="server"))
    channel.users.ChangePassword(
        users_pb2.ChangePasswordRequest(
            current_password=PASSWORD, new_password=NEW_PASSWORD, request_id="password"
        )
    )
    tokens = [first.access_token, first.refresh_token, second.refresh_token, refreshed.access_token]
    return [
        WRONG_PASSWORD,
        PASSWORD,
        NEW_PASSWORD,
        SERVER_PASSWORD,
        SERVER_KEY,
        made.secret,
        service.admin_key,
        *tokens,
    ]


def _dump(service: Service) -> list[str]:
    """Give every value of every row of every table as text."""
    values = []
    with service.database.engine.connect() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)).mappings():
                values += [str(value) for value in row.values()]
    return values


def test_no_secret_stands_in_any_row(backend: Backend) -> None:
    """Keys, passwords, tokens and credentials that were used are found in no column of no table."""
    with serving(backend) as service:
        secrets = [*_use_every_secret(service), SECRET_KEY, CREDENTIAL_KEYS.partition(":")[2]]
        service.on_loop(service.app.audit.flush())
        dump = _dump(service)
    assert service.admin_key[:12] in dump  # what is shown of a key is there, so the dump sees keys
    everything = "\n".join(dump)
    assert "session.open" in everything
    assert [secret for secret in secrets for form in _forms(secret) if form in everything] == []
