"""People who log in to the run's server."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from morag_meta.auth.passwords import hash_password
from morag_meta.auth.principal import ANONYMOUS, Role
from morag_meta.auth.throttle import Limit, Limits, Throttle
from morag_meta.rpc.call import Call
from moragmeta.v1 import users_pb2 as pb
from tests.service import Channel, Service

PASSWORD = "correct horse battery"
THROTTLE = Throttle(bytes(32), Limits(*[Limit(10, dt.timedelta(hours=1))] * 3))
"""Bounds of tries for servicers and sessions that a test makes itself."""

_numbers = itertools.count(1)


def nobody() -> Call:
    """Give a call that brings no credential, for what a test asks of sessions itself."""
    return Call(ANONYMOUS, "UserService.Login", "r", "")


@dataclass(frozen=True)
class Person:
    """A user with a password, an API key, and one session."""

    id: str
    email: str
    key: str
    login: pb.LoginResponse
    channel: Channel  # calls with the access token


NewPerson = Callable[..., Person]


@pytest.fixture
def new_person(service: Service) -> NewPerson:
    """Make users who are logged in."""

    def make(role: Role = Role.USER) -> Person:
        user = service.new_user(role, password_hash=hash_password(PASSWORD, 4))
        login = service.channel().users.Login(pb.LoginRequest(email=user.email, password=PASSWORD))
        return Person(user.id, user.email, user.key, login, service.channel(token=login.access_token))

    return make


@pytest.fixture
def person(new_person: NewPerson) -> Person:
    """Give one who is logged in."""
    return new_person()


def new_email(service: Service) -> str:
    """Give an email that nobody has."""
    return f"person{next(_numbers)}@{service.kind}.example"
