"""What happens to a log-in, a new password or a deletion when somebody else is faster."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
import pytest_asyncio

from morag_meta.auth.passwords import Passwords, hash_password
from morag_meta.auth.sessions import Device
from morag_meta.auth.tokens import Tokens
from morag_meta.db.statements import EVERYONE
from morag_meta.errors import Reason, Unauthenticated
from morag_meta.uow import UnitOfWork
from morag_meta.users import actions
from morag_meta.users.sessions import Sessions
from moragmeta.v1 import servers_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.backends.databases import Backend
from tests.refusals import refused
from tests.service import Service, User, serving
from tests.users.conftest import PASSWORD, THROTTLE, NewPerson, nobody

_COST = 10


class Slow(Passwords):
    """Says what a comparison found when it is told to."""

    def __init__(self) -> None:
        """Say it at once, until a test holds it."""
        super().__init__(_COST, threads=1)
        self.found, self.tell = asyncio.Event(), asyncio.Event()
        self.tell.set()

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Compare a password with a hash."""
        same = await super().matches(password, password_hash)
        self.found.set()
        await self.tell.wait()
        return same


@pytest_asyncio.fixture
async def passwords() -> AsyncIterator[Slow]:
    """What compares passwords."""
    made = Slow()
    yield made
    made.close()


@pytest.fixture
def sessions(service: Service, passwords: Slow) -> Sessions:
    """What opens sessions, in this process."""
    return Sessions(service.database, passwords, Tokens(bytes(64), bytes(32)), THROTTLE)


def _new_password(uow: UnitOfWork, user_id: str) -> None:
    row = actions.lock_standing(uow, EVERYONE, user_id)
    actions.set_password(uow, row, hash_password("another horse", 4))


def _deactivate(uow: UnitOfWork, user_id: str) -> None:
    actions.deactivate(uow, actions.lock_standing(uow, EVERYONE, user_id))


def _delete(uow: UnitOfWork, user_id: str) -> None:
    _deactivate(uow, user_id)
    actions.delete_user(uow, uow.users.lock(EVERYONE, user_id))


@pytest.mark.parametrize("overtake", [_new_password, _deactivate, _delete])
async def test_overtaken_login_opens_nothing(
    service: Service, sessions: Sessions, passwords: Slow, overtake: Callable[[UnitOfWork, str], None]
) -> None:
    """A password that was right when its comparison began opens no session if it no longer counts."""
    user = service.new_user(password_hash=hash_password(PASSWORD, _COST))
    passwords.tell.clear()
    login = asyncio.create_task(sessions.open(user.email, PASSWORD, Device(), nobody()))
    await asyncio.wait_for(passwords.found.wait(), 30)
    with service.database.unit_of_work() as uow:
        overtake(uow, user.id)
        uow.commit()
    passwords.tell.set()
    with pytest.raises(Unauthenticated) as caught:
        await login
    assert caught.value.reason == Reason.LOGIN_FAILED


async def test_login_that_nobody_overtakes_opens_a_session(service: Service, sessions: Sessions) -> None:
    """The same log-in without a rival opens a session: the refusals above are due to the rival."""
    user = service.new_user(password_hash=hash_password(PASSWORD, _COST))
    session = await sessions.open(user.email, PASSWORD, Device(), nobody())
    assert (await sessions.continue_(session.refresh_token, Device(), nobody())).user["id"] == user.id


async def test_session_that_ends_while_it_is_refreshed_does_not_go_on(
    service: Service, sessions: Sessions
) -> None:
    """A refresh that saw the session open gives no token where the session ends before it writes."""
    user = service.new_user(password_hash=hash_password(PASSWORD, _COST))
    session = await sessions.open(user.email, PASSWORD, Device(), nobody())
    with service.database.unit_of_work() as uow:
        uow.epoch.lock()
        uow.sessions.end_all(user.id)
        refresh = asyncio.create_task(sessions.continue_(session.refresh_token, Device(), nobody()))
        await asyncio.sleep(0.3)
        assert not refresh.done()
        uow.commit()
    with pytest.raises(Unauthenticated) as caught:
        await refresh
    assert caught.value.reason == Reason.REFRESH_TOKEN_INVALID


def test_two_new_passwords_at_once_are_one(backend: Backend, new_person: NewPerson) -> None:
    """Of two changes that start from the same password one wins, and its password is the one that counts."""
    with serving(backend, bcrypt_cost=_COST) as service:
        user = service.new_user(password_hash=hash_password(PASSWORD, _COST))
        login = pb.LoginRequest(email=user.email, password=PASSWORD)
        channels = [service.channel(token=service.channel().users.Login(login).access_token) for _ in "ab"]
        outcomes: dict[str, str] = {}

        def change(number: int) -> None:
            password = f"new password {number}"
            request = pb.ChangePasswordRequest(current_password=PASSWORD, new_password=password)
            try:
                channels[number].users.ChangePassword(request)
                outcomes[password] = "OK"
            except grpc.RpcError as error:
                outcomes[password] = error.code().name

        threads = [threading.Thread(target=change, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes.values()) in (["ABORTED", "OK"], ["OK", "UNAUTHENTICATED"])
        for password, outcome in outcomes.items():
            login.password = password
            if outcome == "OK":
                assert service.channel().users.Login(login).user.id == user.id
            else:
                with refused("UNAUTHENTICATED", "LOGIN_FAILED"):
                    service.channel().users.Login(login)


def test_user_who_writes_while_deleted_leaves_no_row(service: Service) -> None:
    """Rows that a user makes in the very moment of the deletion are deleted too, or were never made."""
    user = service.new_user()
    go, numbers = threading.Event(), itertools.count()

    def write() -> None:
        go.wait()
        while True:
            server = servers_pb2.Server(
                name=f"s{next(numbers)}", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1
            )
            try:
                user.channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server))
            except grpc.RpcError as error:
                if error.code().name in ("UNAUTHENTICATED", "NOT_FOUND"):
                    return

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    go.set()
    _remove(service, user)
    for thread in threads:
        thread.join(30)
    with service.database.unit_of_work() as uow:
        assert uow.servers.page(user.id, None, 10) == []
    with refused("NOT_FOUND"):
        service.admin.channel.users.GetUser(pb.GetUserRequest(id=user.id))


def _remove(service: Service, user: User) -> None:
    admin = service.admin.channel.users
    admin.DeactivateUser(pb.DeactivateUserRequest(id=user.id))
    admin.DeleteUser(pb.DeleteUserRequest(id=user.id))
