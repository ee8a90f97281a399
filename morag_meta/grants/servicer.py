"""GrantService: what each call does, in the words of actions and store.

What does not live here: who may call (``rpc/access.py``) and the fields' rules (the proto).
"""

from __future__ import annotations

from typing import Any

from morag_meta.auth.sharing import Level
from morag_meta.errors import invalid, not_found
from morag_meta.grants.actions import give_up_access, grant_access, revoke_access
from morag_meta.grants.convert import grant_to_proto, level_name
from morag_meta.rpc.call import Call
from morag_meta.rpc.methods import reads, writes
from morag_meta.rpc.pages import Page, Pages
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import grants_pb2 as pb


def _receipt(grant: pb.Grant) -> dict[str, Any]:
    return {"owner": grant.owner_id, "database": grant.database_id, "grantee": grant.grantee_id}


class GrantServicer:
    """The grants on a user's databases, and to the user; see ``protos/moragmeta/v1/grants.proto``."""

    SERVICE = "moragmeta.v1.GrantService"

    def __init__(self, pages: Pages) -> None:
        """Take what seals page tokens."""
        self._pages = pages

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Grant:
        row = uow.grants.find(receipt["owner"], receipt["database"], receipt["grantee"])
        if row is None:
            raise not_found("grant", receipt["grantee"])
        return grant_to_proto(row)

    def _replay_revocation(
        self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]
    ) -> pb.RevokeAccessResponse:
        return pb.RevokeAccessResponse()

    @writes(stands=True, replay=_replay, receipt=_receipt)
    def GrantAccess(self, uow: UnitOfWork, request: pb.GrantAccessRequest, call: Call) -> pb.Grant:
        row = grant_access(
            uow,
            call.whole_reach,
            request.database_id,
            request.grantee_id,
            level=level_name(request.level),
            grantor_id=call.own,
            caller=call.grantee(Level.OWNER),
        )
        return grant_to_proto(row)

    @writes(stands=True, replay=_replay_revocation, receipt=lambda _: {})
    def RevokeAccess(
        self, uow: UnitOfWork, request: pb.RevokeAccessRequest, call: Call
    ) -> pb.RevokeAccessResponse:
        caller = call.grantee(Level.OWNER)
        gave_up = (
            caller is not None
            and request.grantee_id == call.own
            and give_up_access(uow, caller, request.database_id)
        )
        if not gave_up:
            revoke_access(uow, call.whole_reach, request.database_id, request.grantee_id, caller=caller)
        return pb.RevokeAccessResponse()

    @reads()
    def ListGrants(self, uow: UnitOfWork, request: pb.ListGrantsRequest, call: Call) -> pb.ListGrantsResponse:
        if request.database_id and request.grantee_id:
            raise invalid("grantee_id", "must be empty where database_id is set")
        page = self._on(uow, request, call) if request.database_id else self._to(uow, request, call)
        return pb.ListGrantsResponse(grants=page.items, next_page_token=page.next_token)

    def _on(self, uow: UnitOfWork, request: pb.ListGrantsRequest, call: Call) -> Page[pb.Grant]:
        database = uow.databases.get(call.whole_reach, request.database_id, call.grantee(Level.OWNER))
        return self._pages.page(
            call,
            request,
            keys=("create_time", "grantee_id"),
            fetch=lambda after, limit: uow.grants.page_on(database["owner_id"], database["id"], after, limit),
            convert=grant_to_proto,
        )

    def _to(self, uow: UnitOfWork, request: pb.ListGrantsRequest, call: Call) -> Page[pb.Grant]:
        grantee_id = call.owner_for("" if request.grantee_id == "me" else request.grantee_id)
        return self._pages.page(
            call,
            request,
            keys=("create_time", "database_id"),
            fetch=lambda after, limit: uow.grants.page_to(grantee_id, after, limit),
            convert=grant_to_proto,
        )
