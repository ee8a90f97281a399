"""That an ADMIN remains, whoever goes at the same time; and who is there when nobody is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from pydantic import SecretStr

from morag_meta.auth.principal import Role
from morag_meta.auth.store import StandingStore
from morag_meta.config.settings import Settings
from morag_meta.db import migrate
from morag_meta.server.preparation import key_hasher, opened, prepare
from moragmeta.v1 import options_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import CREDENTIAL_KEYS, SECRET_KEY, Service, User, serving


@pytest.fixture(scope="module")
def lone_service(backend: Backend) -> Iterator[Service]:
    """A server whose ADMINs a test can count."""
    with serving(backend) as service:
        yield service


def _demote(admin: User, id: str) -> Any:
    return admin.channel.users.SetUserRole(pb.SetUserRoleRequest(id=id, role=options_pb2.ROLE_USER))


def _deactivate(admin: User, id: str) -> Any:
    return admin.channel.users.DeactivateUser(pb.DeactivateUserRequest(id=id))


def _active_admins(service: Service) -> list[str]:
    with service.database.unit_of_work() as uow:
        rows = uow.users.page("-", None, 100, role="ADMIN", active=True, text="")
        return [row["id"] for row in rows]


def test_last_admin_stays(lone_service: Service) -> None:
    """The only active ADMIN is neither demoted, deactivated nor deleted; a second one frees the first."""
    admin = lone_service.new_user(Role.ADMIN)
    for other in _active_admins(lone_service):
        if other != admin.id:
            _deactivate(admin, other)
    for act in (_demote, _deactivate):
        with refused("FAILED_PRECONDITION", "LAST_ADMIN"):
            act(admin, "me")
    with refused("FAILED_PRECONDITION", "USER_ACTIVE"):
        admin.channel.users.DeleteUser(pb.DeleteUserRequest(id="me"))
    second = lone_service.new_user(Role.ADMIN)
    assert _demote(second, admin.id).role == options_pb2.ROLE_USER
    with refused("FAILED_PRECONDITION", "LAST_ADMIN"):
        _deactivate(second, "me")


@pytest.mark.parametrize("act", [_demote, _deactivate])
@pytest.mark.parametrize("attempt", range(3))
def test_of_all_admins_leaving_at_once_one_stays(
    lone_service: Service, act: Callable[[User, str], Any], attempt: int
) -> None:
    """When all ADMINs leave at the same moment, exactly one is told LAST_ADMIN and stays."""
    admins = [lone_service.new_user(Role.ADMIN) for _ in range(6)]
    for other in _active_admins(lone_service):
        if other not in {admin.id for admin in admins}:
            _deactivate(admins[0], other)
    for admin in admins:  # connected, so that all start together
        admin.channel.users.GetUser(pb.GetUserRequest(id="me"))

    def leave(admin: User) -> str:
        try:
            act(admin, "me")
        except grpc.RpcError as error:
            return str(error.details())
        return "left"

    with ThreadPoolExecutor(len(admins)) as pool:
        outcomes = list(pool.map(leave, admins))
    assert outcomes.count("left") == len(admins) - 1, outcomes
    assert len(_active_admins(lone_service)) == 1


def test_two_admins_cannot_remove_each_other(lone_service: Service) -> None:
    """Two last ADMINs who demote each other at once do not both succeed."""
    pair = [lone_service.new_user(Role.ADMIN) for _ in range(2)]
    for other in _active_admins(lone_service):
        if other not in {admin.id for admin in pair}:
            _deactivate(pair[0], other)

    def remove(admin: User, other: User) -> bool:
        try:
            _demote(admin, other.id)
        except grpc.RpcError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(remove, pair, reversed(pair)))
    assert sum(done) == 1
    assert len(_active_admins(lone_service)) == 1


def test_first_admin_is_made_once(database_url: str) -> None:
    """Of eight starters on an empty database one makes the ADMIN and gets the key, and it works."""
    migrate.upgrade(database_url)
    settings = Settings(
        database_url=database_url,
        secret_key=SecretStr(SECRET_KEY),
        credential_keys=SecretStr(CREDENTIAL_KEYS),
    )
    with ThreadPoolExecutor(8) as pool:
        keys = [key for key in pool.map(prepare, [settings] * 8) if key is not None]
    assert len(keys) == 1
    with opened(settings) as database, database.unit_of_work() as uow:
        user = uow.users.find_by_email("admin@localhost")
        assert user is not None
        assert (user["role"], user["active"], user["password_hash"]) == ("ADMIN", True, None)
        assert uow.settings.get("-", user["id"])["theme"] == "LIGHT"
        [row] = uow.api_keys.page("-", None, 10, show_revoked=True)
        assert (row["owner_id"], row["scopes"], row["key_prefix"]) == (user["id"], ["*"], keys[0][:12])
        assert StandingStore(uow).of_key(key_hasher(settings).digest(keys[0]))["user_id"] == user["id"]
