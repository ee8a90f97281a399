"""ApiKeyService: what each call does, in the words of the store.

What does not live here: who may call (``rpc/access.py``), the fields' rules (the proto), and how a key
lets somebody in (``auth/authenticator.py``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from google.protobuf.empty_pb2 import Empty

from morag_meta.api_keys import actions
from morag_meta.api_keys.convert import (
    end_from_proto,
    grace_from_proto,
    key_to_proto,
    limit_from_proto,
    principal_to_proto,
    usage_to_proto,
    verdict_to_proto,
)
from morag_meta.api_keys.rules import (
    Grantor,
    Policy,
    check_addresses,
    check_changeable,
    check_end,
    check_scopes,
    check_within,
)
from morag_meta.api_keys.verification import question, verdict_of, visible
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.principal import Principal, Role
from morag_meta.auth.rates import Allowance
from morag_meta.auth.standing import Standing, columns_of
from morag_meta.db.statements import EVERYONE
from morag_meta.errors import NotFound, not_found
from morag_meta.rpc.call import Call
from morag_meta.rpc.etags import check_etag
from morag_meta.rpc.masks import masked
from morag_meta.rpc.methods import composes, reads, writes
from morag_meta.rpc.pages import Pages
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import api_keys_pb2 as pb

_PATH = "api_key."
_STANDING = ("scopes", "expire_time", "allowed_addresses", "rate_limit")

_USAGE_DAYS = 30
_WRITE_SCOPE = "api_keys:write"

StandingOf = Callable[[str], Awaitable[Standing]]


def _grantor(call: Call) -> Grantor:
    """Give what bounds the keys that the caller grants: the role, and the calling key, if it is one."""
    principal = call.principal
    if not principal.key_id:
        return Grantor(principal.role)
    return Grantor(
        principal.role,
        principal.scopes,
        principal.expire_time,
        principal.addresses,
        principal.limit,
        principal.narrowing,
    )


def _reach(call: Call, key_id: str) -> str:
    """Whose key somebody ends or replaces; a caller who may not do that to others does it to their own alone.

    Raises:
        NotFound: it is another key, and the calling one is narrowed or may not write keys.
    """
    principal = call.principal
    if principal.key_id == key_id:
        return principal.user_id
    if principal.narrowing is not None or not principal.has_scope(_WRITE_SCOPE):
        raise not_found("api_key", key_id)
    return call.whole_reach


class ApiKeyServicer:
    """API keys; see ``protos/moragmeta/v1/api_keys.proto``."""

    SERVICE = "moragmeta.v1.ApiKeyService"

    def __init__(
        self,
        pages: Pages,
        hasher: KeyHasher,
        standing_of: StandingOf,
        allowance: Callable[[Principal], Allowance | None],
        *,
        scopes: Mapping[str, Role],
        policy: Policy,
    ) -> None:
        """Take what seals page tokens, what hashes keys, and what says which key stands, and what it may do.

        ``scopes`` are the known ones, each with its least role.
        """
        self._pages = pages
        self._hasher = hasher
        self._standing_of = standing_of
        self._allowance = allowance
        self._scopes = scopes
        self._policy = policy

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.ApiKey:
        return key_to_proto(uow.api_keys.get(call.reach.owner_id, receipt["id"]), uow.now)

    def _replay_creation(
        self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]
    ) -> pb.CreateApiKeyResponse:
        return pb.CreateApiKeyResponse(api_key=self._replay(uow, call, receipt), replayed=True)

    def _replay_rotation(
        self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]
    ) -> pb.RotateApiKeyResponse:
        response = pb.RotateApiKeyResponse(api_key=self._replay(uow, call, receipt), replayed=True)
        with contextlib.suppress(NotFound):  # it was deleted since
            response.predecessor.CopyFrom(self._replay(uow, call, {"id": receipt["old_id"]}))
        return response

    def _replay_deletion(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> Empty:
        return Empty()

    @writes(stands=True, replay=_replay_creation, receipt=lambda response: {"id": response.api_key.id})
    def CreateApiKey(
        self, uow: UnitOfWork, request: pb.CreateApiKeyRequest, call: Call
    ) -> pb.CreateApiKeyResponse:
        owner_id = call.owner_for(request.owner_id)
        grantor = _grantor(call)
        standing = self._granted(uow, call, owner_id, request.api_key, _STANDING)
        standing |= actions.narrowing_columns(
            uow,
            uow.users.get(EVERYONE, owner_id),
            request.api_key.database_ids,
            request.api_key.server_ids,
            grantor.narrowing,
        )
        check_within(standing, grantor=grantor, path=_PATH)
        row, secret = actions.create_key(
            uow,
            self._hasher,
            owner_id=owner_id,
            name=request.api_key.name,
            description=request.api_key.description,
            **standing,
        )
        return pb.CreateApiKeyResponse(api_key=key_to_proto(row, uow.now), secret=secret)

    @reads(point=True)
    def GetApiKey(self, uow: UnitOfWork, request: pb.GetApiKeyRequest, call: Call) -> pb.ApiKey:
        return key_to_proto(uow.api_keys.get(call.whole_reach, request.id), uow.now)

    @reads()
    def ListApiKeys(
        self, uow: UnitOfWork, request: pb.ListApiKeysRequest, call: Call
    ) -> pb.ListApiKeysResponse:
        owner = call.owner_for(request.owner_id)
        page = self._pages.page(
            call,
            request,
            keys=("create_time", "id"),
            fetch=lambda after, limit: uow.api_keys.page(
                owner, after, limit, show_revoked=request.show_revoked
            ),
            convert=lambda row: key_to_proto(row, uow.now),
        )
        return pb.ListApiKeysResponse(api_keys=page.items, next_page_token=page.next_token)

    @writes(stands=True, replay=_replay)
    def UpdateApiKey(self, uow: UnitOfWork, request: pb.UpdateApiKeyRequest, call: Call) -> pb.ApiKey:
        names = masked(request.api_key, request.update_mask)
        standing = [name for name in names if name in _STANDING]
        row = uow.api_keys.lock(call.whole_reach, request.api_key.id)
        check_etag(request.api_key.etag, row)
        check_changeable(row, uow.now)
        values: dict[str, Any] = {
            name: getattr(request.api_key, name) for name in names if name in ("name", "description")
        }
        if standing:
            values |= self._granted(uow, call, row["owner_id"], request.api_key, standing)
            check_within({**row, **values}, grantor=_grantor(call), path=_PATH)
            uow.epoch.bump()
        if values:
            row = uow.api_keys.change(row, **values)
        return key_to_proto(row, uow.now)

    @writes(stands=True, replay=_replay_deletion, receipt=lambda _: {})
    def DeleteApiKey(self, uow: UnitOfWork, request: pb.DeleteApiKeyRequest, call: Call) -> Empty:
        row = actions.lock_key(uow, call.whole_reach, request.id)
        check_etag(request.etag, row)
        uow.api_keys.delete(row)
        uow.epoch.bump()
        return Empty()

    @writes(stands=True, replay=_replay)
    def RevokeApiKey(self, uow: UnitOfWork, request: pb.RevokeApiKeyRequest, call: Call) -> pb.ApiKey:
        row = actions.lock_key(uow, _reach(call, request.id), request.id)
        check_etag(request.etag, row)
        return key_to_proto(actions.revoke(uow, row), uow.now)

    @writes(stands=True, replay=_replay)
    def DisableApiKey(self, uow: UnitOfWork, request: pb.DisableApiKeyRequest, call: Call) -> pb.ApiKey:
        row = actions.lock_key(uow, _reach(call, request.id), request.id)
        check_etag(request.etag, row)
        return key_to_proto(actions.disable(uow, row), uow.now)

    @writes(stands=True, replay=_replay)
    def EnableApiKey(self, uow: UnitOfWork, request: pb.EnableApiKeyRequest, call: Call) -> pb.ApiKey:
        row = actions.lock_key(uow, call.whole_reach, request.id)
        check_etag(request.etag, row)
        check_within(row, grantor=_grantor(call), path="")
        return key_to_proto(actions.enable(uow, row), uow.now)

    @writes(
        stands=True,
        replay=_replay_rotation,
        receipt=lambda response: {"id": response.api_key.id, "old_id": response.predecessor.id},
    )
    def RotateApiKey(
        self, uow: UnitOfWork, request: pb.RotateApiKeyRequest, call: Call
    ) -> pb.RotateApiKeyResponse:
        grace = grace_from_proto(request)
        row = actions.lock_key(uow, _reach(call, request.id), request.id)
        check_etag(request.etag, row)
        check_within(row, grantor=_grantor(call), path="")
        self._policy.check(row["expire_time"], now=uow.now, field="id")
        new, old, secret = actions.rotate(uow, self._hasher, row, grace)
        return pb.RotateApiKeyResponse(
            api_key=key_to_proto(new, uow.now), secret=secret, predecessor=key_to_proto(old, uow.now)
        )

    @composes
    async def VerifyApiKey(self, request: pb.VerifyApiKeyRequest, call: Call) -> pb.VerifyApiKeyResponse:
        asked = question(request.scope, request.address, self._scopes)
        standing = visible(await self._standing_of(request.key), call.principal)
        left = None if standing.holder is None else self._allowance(standing.holder)
        return verdict_to_proto(verdict_of(standing, asked, self._scopes, left), standing.holder, left)

    @reads(snapshot=True)
    def GetApiKeyUsage(
        self, uow: UnitOfWork, request: pb.GetApiKeyUsageRequest, call: Call
    ) -> pb.ApiKeyUsage:
        row = uow.api_keys.get(call.whole_reach, request.id)
        today = uow.now.replace(hour=0, minute=0, second=0, microsecond=0)
        first = today - dt.timedelta(days=(request.days or _USAGE_DAYS) - 1)
        return usage_to_proto(
            uow.api_keys.calls_by_day(row, first, today), uow.api_keys.calls_by_method(row, first, today)
        )

    @composes
    async def GetCurrentPrincipal(self, request: pb.GetCurrentPrincipalRequest, call: Call) -> pb.Principal:
        return principal_to_proto(call.principal, call.peer)

    def _granted(
        self, uow: UnitOfWork, call: Call, owner_id: str, key: pb.ApiKey, names: Sequence[str]
    ) -> dict[str, Any]:
        """Give what these fields say that a key may, where the owner and the installation allow it."""
        granted: dict[str, Any] = {}
        if "expire_time" in names:
            end = granted["expire_time"] = end_from_proto(key)
            check_end(end, now=uow.now, field=_PATH + "expire_time")
            self._policy.check(end, now=uow.now, field=_PATH + "expire_time")
        if "scopes" in names:
            role = Role[uow.users.get(EVERYONE, owner_id)["role"]]
            field = _PATH + "scopes"
            granted["scopes"] = check_scopes(key.scopes, known=self._scopes, owner_role=role, field=field)
        if "allowed_addresses" in names:
            granted["allowed_addresses"] = check_addresses(
                key.allowed_addresses, field=_PATH + "allowed_addresses"
            )
        if "rate_limit" in names:
            limit = limit_from_proto(key)
            self._policy.check_limit(limit, role=call.principal.role)
            granted |= columns_of(limit)
        return granted
