"""UserService: what each call does, in the words of the stores.

What does not live here: who may call (``rpc/access.py``), the fields' rules (the proto), and what taking
standing away means (``users/actions.py``).
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.empty_pb2 import Empty

from morag_meta.auth.passwords import Passwords, check_password
from morag_meta.auth.principal import Role
from morag_meta.auth.sessions import Device
from morag_meta.auth.throttle import Throttle
from morag_meta.auth.tokens import Tokens
from morag_meta.db.database import Database
from morag_meta.db.statements import EVERYONE
from morag_meta.errors import Forbidden, Reason, invalid
from morag_meta.rpc.call import Call
from morag_meta.rpc.etags import check_etag
from morag_meta.rpc.masks import masked
from morag_meta.rpc.methods import composes, reads, writes
from morag_meta.rpc.pages import Pages
from morag_meta.rpc.times import to_timestamp
from morag_meta.rpc.trail import record
from morag_meta.uow import UnitOfWork
from morag_meta.users import actions
from morag_meta.users.convert import (
    reset_to_proto,
    role_name,
    session_to_proto,
    settings_from_proto,
    settings_to_proto,
    user_from_proto,
    user_to_proto,
)
from morag_meta.users.deletions import Deletions
from morag_meta.users.password_changes import PasswordChanges
from morag_meta.users.password_resets import PasswordResets
from morag_meta.users.rules import Registration, check_email_change
from morag_meta.users.sessions import Sessions
from moragmeta.v1 import users_pb2 as pb

_RESETS: Final = 50
_MOST_RESETS: Final = 100  # each is a few statements of one transaction


def _device(call: Call) -> Device:
    return Device(call.address or None, call.agent or None)


class UserServicer:
    """Users; see ``protos/moragmeta/v1/users.proto``."""

    SERVICE = "moragmeta.v1.UserService"

    def __init__(
        self,
        database: Database,
        pages: Pages,
        passwords: Passwords,
        tokens: Tokens,
        throttle: Throttle,
        resets: PasswordResets,
        registration: Registration,
    ) -> None:
        """Take the parts."""
        self._database = database
        self._pages = pages
        self._passwords = passwords
        self._deletions = Deletions(database, throttle)
        self._sessions = Sessions(database, passwords, tokens, throttle)
        self._password_changes = PasswordChanges(database, passwords, throttle)
        self._resets = resets
        self._registration = registration

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.User:
        return user_to_proto(uow.users.get(call.whole_reach, receipt["id"]))

    def _replay_end(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.EndSessionResponse:
        return pb.EndSessionResponse()

    def _replay_settings(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.UserSettings:
        return settings_to_proto(uow.settings.get(call.whole_reach, receipt["owner_id"]))

    @composes
    async def RegisterUser(self, request: pb.RegisterUserRequest, call: Call) -> pb.User:
        if not self._registration.enabled:
            raise Forbidden("registration is switched off", reason=Reason.REGISTRATION_DISABLED)
        check_password(request.password, new=True)
        password_hash = await self._passwords.hash(request.password)

        def register(uow: UnitOfWork) -> pb.User:
            receipt = uow.requests.claim(call, request)
            if receipt is not None:
                return user_to_proto(uow.users.get(EVERYONE, receipt["id"]))
            row = actions.create_user(
                uow,
                name=request.name,
                email=request.email,
                role=self._registration.role,
                password_hash=password_hash,
            )
            uow.requests.settle(call, request, {"id": row["id"]})
            user = user_to_proto(row)
            record(uow, call, user, user_id=row["id"])
            return user

        return await self._database.write(register, deadline=call.deadline)

    @composes
    async def Login(self, request: pb.LoginRequest, call: Call) -> pb.LoginResponse:
        session = await self._sessions.open(request.email, request.password, _device(call), call)
        return pb.LoginResponse(
            access_token=session.access_token,
            access_token_expire_time=to_timestamp(session.access_end),
            refresh_token=session.refresh_token,
            session_expire_time=to_timestamp(session.end),
            user=user_to_proto(session.user),
        )

    @composes
    async def RefreshToken(self, request: pb.RefreshTokenRequest, call: Call) -> pb.RefreshTokenResponse:
        session = await self._sessions.continue_(request.refresh_token, _device(call), call)
        return pb.RefreshTokenResponse(
            access_token=session.access_token,
            access_token_expire_time=to_timestamp(session.access_end),
            refresh_token=session.refresh_token,
            session_expire_time=to_timestamp(session.end),
        )

    @writes(stands=True)
    def Logout(self, uow: UnitOfWork, request: pb.LogoutRequest, call: Call) -> pb.LogoutResponse:
        actions.end_session(uow, call.own, call.principal.session_id)
        return pb.LogoutResponse()

    @reads()
    def ListSessions(
        self, uow: UnitOfWork, request: pb.ListSessionsRequest, call: Call
    ) -> pb.ListSessionsResponse:
        owner = call.owner_for(request.owner_id)
        page = self._pages.page(
            call,
            request,
            keys=("create_time", "id"),
            fetch=lambda after, limit: uow.sessions.page(owner, after, limit),
            convert=lambda row: session_to_proto(row, call.principal.session_id),
        )
        return pb.ListSessionsResponse(sessions=page.items, next_page_token=page.next_token)

    @writes(stands=True, replay=_replay_end, receipt=lambda _: {})
    def EndSession(self, uow: UnitOfWork, request: pb.EndSessionRequest, call: Call) -> pb.EndSessionResponse:
        owner_id = uow.sessions.owner(call.whole_reach, request.id)
        actions.end_session(uow, owner_id, request.id)
        return pb.EndSessionResponse()

    @reads(point=True)
    def GetUser(self, uow: UnitOfWork, request: pb.GetUserRequest, call: Call) -> pb.User:
        return user_to_proto(uow.users.get(call.whole_reach, call.user_named(request.id)))

    @reads()
    def ListUsers(self, uow: UnitOfWork, request: pb.ListUsersRequest, call: Call) -> pb.ListUsersResponse:
        active = request.active if request.HasField("active") else None
        page = self._pages.page(
            call,
            request,
            keys=("create_time", "id"),
            fetch=lambda after, limit: uow.users.page(
                call.whole_reach, after, limit, role=role_name(request.role), active=active, text=request.text
            ),
            convert=user_to_proto,
        )
        return pb.ListUsersResponse(users=page.items, next_page_token=page.next_token)

    @writes(stands=True, replay=_replay)
    def UpdateUser(self, uow: UnitOfWork, request: pb.UpdateUserRequest, call: Call) -> pb.User:
        values = user_from_proto(request.user, masked(request.user, request.update_mask))
        if not request.user.id:
            raise invalid("user.id", "is required")
        row = uow.users.lock(call.whole_reach, call.user_named(request.user.id))
        check_etag(request.user.etag, row)
        if values.get("email", row["email"]) != row["email"]:
            check_email_change(call.principal, row["id"])
            uow.resets.void(row["id"])  # it was sent to the email of before
        if values:
            row = uow.users.change(row, **values)
        return user_to_proto(row)

    @composes
    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, call: Call
    ) -> pb.ChangePasswordResponse:
        await self._password_changes.change(request, call)
        return pb.ChangePasswordResponse()

    @composes
    async def RequestPasswordReset(
        self, request: pb.RequestPasswordResetRequest, call: Call
    ) -> pb.RequestPasswordResetResponse:
        await self._resets.ask(request.email, call)
        return pb.RequestPasswordResetResponse()

    @composes
    async def TakePasswordResets(
        self, request: pb.TakePasswordResetsRequest, call: Call
    ) -> pb.TakePasswordResetsResponse:
        limit = min(request.limit or _RESETS, _MOST_RESETS)
        resets = await self._resets.take(limit, call)
        return pb.TakePasswordResetsResponse(resets=map(reset_to_proto, resets))

    @composes
    async def CreatePasswordReset(
        self, request: pb.CreatePasswordResetRequest, call: Call
    ) -> pb.PasswordReset:
        return reset_to_proto(await self._resets.create(request.email, call))

    @composes
    async def ResetPassword(self, request: pb.ResetPasswordRequest, call: Call) -> pb.ResetPasswordResponse:
        await self._resets.use(request, call)
        return pb.ResetPasswordResponse()

    @writes(stands=True, replay=_replay)
    def SetUserRole(self, uow: UnitOfWork, request: pb.SetUserRoleRequest, call: Call) -> pb.User:
        row = actions.lock_standing(uow, call.whole_reach, call.user_named(request.id))
        check_etag(request.etag, row)
        return user_to_proto(actions.set_role(uow, row, Role(request.role)))

    @writes(stands=True, replay=_replay)
    def DeactivateUser(self, uow: UnitOfWork, request: pb.DeactivateUserRequest, call: Call) -> pb.User:
        row = actions.lock_standing(uow, call.whole_reach, call.user_named(request.id))
        check_etag(request.etag, row)
        return user_to_proto(actions.deactivate(uow, row))

    @writes(stands=True, replay=_replay)
    def ReactivateUser(self, uow: UnitOfWork, request: pb.ReactivateUserRequest, call: Call) -> pb.User:
        row = actions.lock_standing(uow, call.whole_reach, call.user_named(request.id))
        check_etag(request.etag, row)
        return user_to_proto(actions.reactivate(uow, row))

    @composes
    async def DeleteUser(self, request: pb.DeleteUserRequest, call: Call) -> Empty:
        await self._deletions.delete(request, call)
        return Empty()

    @reads(point=True)
    def GetUserSettings(
        self, uow: UnitOfWork, request: pb.GetUserSettingsRequest, call: Call
    ) -> pb.UserSettings:
        return settings_to_proto(
            uow.settings.get(call.whole_reach, call.user_named(request.owner_id or "me"))
        )

    @writes(replay=_replay_settings, receipt=lambda response: {"owner_id": response.owner_id})
    def UpdateUserSettings(
        self, uow: UnitOfWork, request: pb.UpdateUserSettingsRequest, call: Call
    ) -> pb.UserSettings:
        values = settings_from_proto(request.settings, masked(request.settings, request.update_mask))
        row = uow.settings.lock(call.whole_reach, call.user_named(request.settings.owner_id or "me"))
        check_etag(request.settings.etag, row)
        if values.get("default_database_id"):
            uow.databases.get(row["owner_id"], values["default_database_id"])  # the user's own, or NOT_FOUND
        if values:
            row = uow.settings.change(row, **values)
        return settings_to_proto(row)
