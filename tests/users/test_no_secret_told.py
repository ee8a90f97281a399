"""No password, token or hash of one reaches a log line, an answer's text or its details."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import structlog

from morag_meta.db.schema import password_resets, sessions, tries, users
from moragmeta.v1 import users_pb2 as pb
from tests.backends.databases import Backend
from tests.service import Service, serving

PASSWORDS = [
    "correct horse battery",
    "wrong horse battery",
    "another horse battery",
    "a fourth horse battery",
]
EXPECTED = {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "NOT_FOUND"}
EMAIL, NOBODY = "teller@example.org", "nobody.at.all@example.org"


@pytest.fixture
def service(backend: Backend) -> Iterator[Service]:
    """Give a server of its own, of which every row belongs to this test, with narrow bounds."""
    with serving(backend, login_failures=3, login_address_failures=40) as started:
        yield started


class Told:
    """What was told to callers, and the secrets that they had."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.secrets: list[str] = list(PASSWORDS)
        self.codes: set[str] = set()

    def call(self, stub: Callable[..., Any], request: Any) -> Any:
        """Call, and keep what an expected refusal says, in its message and its details.

        Any other one ends the test with its own words: a busy machine's ``UNAVAILABLE`` is no finding.
        """
        try:
            return stub(request)
        except grpc.RpcError as caught:
            error: Any = caught
            trailers = [(key, str(value)) for key, value in error.trailing_metadata()]
            self.texts.append(f"{error.details()} {trailers}")
            if error.code().name not in EXPECTED:
                raise
            self.codes.add(error.code().name)
            return None

    def hide(self, *secrets: str) -> None:
        """Note secrets that nobody may be told."""
        self.secrets += secrets


def _sessions(service: Service, told: Told) -> pb.LoginResponse:
    """Register, log in rightly and wrongly, refresh, and repeat old tokens."""
    anybody = service.channel().users
    told.call(anybody.RegisterUser, pb.RegisterUserRequest(name="Jo", email=EMAIL, password=PASSWORDS[0]))
    login = pb.LoginRequest(email=EMAIL, password=PASSWORDS[0])
    first, second = told.call(anybody.Login, login), told.call(anybody.Login, login)
    chain = [first.refresh_token]
    for _ in range(2):
        told.hide(*_hashes(service))  # of tokens that are replaced next
        answer = told.call(anybody.RefreshToken, pb.RefreshTokenRequest(refresh_token=chain[-1]))
        chain.append(answer.refresh_token)
        told.hide(answer.access_token)
    told.hide(*chain, first.access_token, second.access_token, second.refresh_token)
    for token in (*chain, "m" * 86, "x" * 200):
        told.call(anybody.RefreshToken, pb.RefreshTokenRequest(refresh_token=token))
    for email in (EMAIL, NOBODY):
        for _ in range(5):
            told.call(anybody.Login, pb.LoginRequest(email=email, password=PASSWORDS[1]))
    told.call(anybody.Login, pb.LoginRequest(email=EMAIL, password=PASSWORDS[1] * 9))
    return second  # type: ignore[no-any-return]


def _passwords(service: Service, told: Told, login: pb.LoginResponse) -> None:
    """Change and reset passwords, rightly and wrongly, and repeat used tokens."""
    mine, anybody = service.channel(token=login.access_token).users, service.channel().users
    right, wrong, new, _ = PASSWORDS
    for current, wanted in ((wrong, new), (right, "short"), (right, new)):
        change = pb.ChangePasswordRequest(current_password=current, new_password=wanted)
        told.call(mine.ChangePassword, change)
    for email in (EMAIL, NOBODY):
        told.call(anybody.RequestPasswordReset, pb.RequestPasswordResetRequest(email=email))
    admin = service.admin.channel.users
    taken = told.call(admin.TakePasswordResets, pb.TakePasswordResetsRequest())
    made = told.call(admin.CreatePasswordReset, pb.CreatePasswordResetRequest(email=EMAIL))
    told.call(admin.CreatePasswordReset, pb.CreatePasswordResetRequest(email=NOBODY))
    tokens = [taken.resets[0].token, made.token]
    told.hide(*tokens)
    for token in (*tokens, made.token, "y" * 43):
        request = pb.ResetPasswordRequest(token=token, new_password=PASSWORDS[3])
        told.call(anybody.ResetPassword, request)
    told.call(anybody.ResetPassword, pb.ResetPasswordRequest(token=made.token, new_password="short"))


def _hashes(service: Service) -> list[str]:
    columns = [
        users.c.password_hash,
        sessions.c.refresh_hash,
        sessions.c.previous_hash,
        password_resets.c.token_hash,
        tries.c.account,
    ]
    found: list[str] = []
    with service.database.engine.connect() as connection:
        for column in columns:
            rows = connection.execute(column.table.select().with_only_columns(column))
            found += [value for (value,) in rows if value]
    return found


def _forms(secret: str) -> set[str]:
    raw = secret.encode()
    return {secret, raw.hex(), *(base64.b64encode(raw + b"x" * pad).decode()[:-4] for pad in range(3))}


@pytest.fixture
def debugging() -> Iterator[None]:
    """Log at DEBUG, at whatever level other tests have left this process."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("debugging")
def test_no_secret_is_told_or_logged(service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever these calls are refused for, in logs at DEBUG and answers stand no password, token or hash."""
    told = Told()
    with structlog.testing.capture_logs() as lines:
        login = _sessions(service, told)
        before = _hashes(service)
        _passwords(service, told, login)
    secrets = [*told.secrets, *before, *_hashes(service)]
    captured = capfd.readouterr()
    everything = "\n".join([*told.texts, json.dumps(lines, default=str), captured.out, captured.err])
    assert told.codes == EXPECTED  # so every kind of refusal was looked at
    assert sum(line["event"] == "call" for line in lines) > 20  # and the log of the calls
    assert len(secrets) > 20
    assert [secret for secret in secrets for form in _forms(secret) if form in everything] == []
    assert EMAIL not in json.dumps(lines, default=str)
