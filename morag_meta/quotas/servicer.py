"""QuotaService: what each call does, in the words of the stores.

What does not live here: who may call (``rpc/access.py``), the fields' rules (the proto), and where a limit
is looked at, which is each commit that adds something (``uow.py``).
"""

from __future__ import annotations

from typing import Any

from morag_meta.db.statements import EVERYONE
from morag_meta.db.unit import Row
from morag_meta.quotas.convert import etag, limits_from_proto, quotas_to_proto, usage_to_proto
from morag_meta.rpc.call import Call
from morag_meta.rpc.etags import changed_meanwhile
from morag_meta.rpc.masks import masked
from morag_meta.rpc.methods import reads, writes
from morag_meta.uow import UnitOfWork
from moragmeta.v1 import quotas_pb2 as pb


def _owner_id(uow: UnitOfWork, call: Call, sent: str) -> str:
    """Give the id of the user who is meant, who exists and is in reach."""
    owner_id: str = uow.users.get(call.whole_reach, call.user_named(sent or "me"))["id"]
    return owner_id


def _shown(uow: UnitOfWork, row: Row) -> pb.Quotas:
    return quotas_to_proto(row, uow.quotas.defaults)


def _check(sent: str, row: Row) -> None:
    if sent and sent != etag(row):
        raise changed_meanwhile()


class QuotaServicer:
    """What users may have; see ``protos/moragmeta/v1/quotas.proto``."""

    SERVICE = "moragmeta.v1.QuotaService"

    def _replay(self, uow: UnitOfWork, call: Call, receipt: dict[str, Any]) -> pb.Quotas:
        return _shown(uow, uow.quotas.get(_owner_id(uow, call, receipt["owner_id"])))

    @reads(snapshot=True)
    def GetQuotas(self, uow: UnitOfWork, request: pb.GetQuotasRequest, call: Call) -> pb.Quotas:
        return _shown(uow, uow.quotas.get(_owner_id(uow, call, request.owner_id)))

    @writes(stands=True, replay=_replay, receipt=lambda quotas: {"owner_id": quotas.owner_id})
    def SetQuotas(self, uow: UnitOfWork, request: pb.SetQuotasRequest, call: Call) -> pb.Quotas:
        limits = limits_from_proto(request.quotas, masked(request.quotas, request.update_mask))
        sent = request.quotas.owner_id
        owner = uow.users.lock(EVERYONE, call.user_named(sent or "me"))["id"]
        if limits:
            row = uow.quotas.set(owner, limits, lambda old: _check(request.quotas.etag, old))
        else:
            row = uow.quotas.get(owner)
            _check(request.quotas.etag, row)
        return _shown(uow, row)

    @reads(snapshot=True)
    def GetUsage(self, uow: UnitOfWork, request: pb.GetUsageRequest, call: Call) -> pb.Usage:
        owner_id = _owner_id(uow, call, request.owner_id)
        return usage_to_proto(owner_id, uow.quotas.uses(owner_id, uow.quotas.get(owner_id)))
