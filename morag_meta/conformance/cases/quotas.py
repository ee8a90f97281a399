"""Quotas: that a limit holds to the unit, warns before, and is the ADMIN's to set."""

from __future__ import annotations

from typing import Any

from morag_meta.conformance.bench import Bench
from morag_meta.conformance.case import Area
from morag_meta.conformance.expect import refused, same
from morag_meta.conformance.world import Member
from moragmeta.v1 import documents_pb2, servers_pb2
from moragmeta.v1 import quotas_pb2 as pb

AREA = Area("quotas")
_WARNING = "morag-quota-warning"


def _set(bench: Bench, member: Member, **limits: Any) -> None:
    quotas = pb.Quotas(owner_id=member.id, **limits)
    bench.admin.quotas.SetQuotas(pb.SetQuotasRequest(quotas=quotas))


def _add(bench: Bench, member: Member) -> list[str]:
    """Add a server, and give the warnings of the answer."""
    request = servers_pb2.CreateServerRequest(server=bench.a_server())
    _, call = member.caller.servers.CreateServer.with_call(request)
    return [str(value) for key, value in call.trailing_metadata() if key == _WARNING]


@AREA.admin_case
def a_limit_holds_to_the_unit(bench: Bench) -> None:
    """Up to the limit creations succeed, from 80 % on with a warning, and beyond it RESOURCE_EXHAUSTED."""
    member = bench.add_user()
    _set(bench, member, servers=5)
    seen = [_add(bench, member) for _ in range(5)]
    same("the warnings", seen, [[], [], [], ["servers=4/5"], ["servers=5/5"]])
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", resource="servers", limit="5", owner_id=member.id):
        _add(bench, member)
    used = member.caller.quotas.GetUsage(pb.GetUsageRequest()).servers
    same("the use", used, pb.ResourceUse(used=5, limit=5, near_limit=True))


@AREA.admin_case
def a_batch_is_taken_as_a_whole_or_not_at_all(bench: Bench) -> None:
    """A batch that has no room is refused, and registers none of its documents."""
    member = bench.add_user()
    _set(bench, member, documents=1)
    items = [
        documents_pb2.CreateDocumentRequest(
            document=documents_pb2.Document(name=bench.name(), type=bench.kind)
        )
        for _ in range(2)
    ]
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", resource="documents"):
        member.caller.documents.BatchCreateDocuments(
            documents_pb2.BatchCreateDocumentsRequest(requests=items)
        )
    used = member.caller.quotas.GetUsage(pb.GetUsageRequest()).documents.used
    same("the documents", used, 0)


@AREA.admin_case
def an_old_etag_sets_no_quota(bench: Bench) -> None:
    """SetQuotas with an etag that is not the present one is ABORTED, and changes nothing."""
    member, quotas = bench.add_user(), bench.admin.quotas
    old = quotas.GetQuotas(pb.GetQuotasRequest(owner_id=member.id)).etag
    first = quotas.SetQuotas(pb.SetQuotasRequest(quotas=pb.Quotas(owner_id=member.id, servers=1, etag=old)))
    with refused("ABORTED", "ETAG_MISMATCH"):
        quotas.SetQuotas(pb.SetQuotasRequest(quotas=pb.Quotas(owner_id=member.id, servers=2, etag=old)))
    same("the quotas", quotas.GetQuotas(pb.GetQuotasRequest(owner_id=member.id)), first)


@AREA.case
def who_has_no_quota_is_told_so(bench: Bench) -> None:
    """A user reads the own use, of everything that can be bounded."""
    before = bench.mine.quotas.GetUsage(pb.GetUsageRequest(owner_id="me"))
    bench.add_server()
    after = bench.mine.quotas.GetUsage(pb.GetUsageRequest())
    same("whose it is", after.owner_id, bench.me.id)
    same("its servers", after.servers.used > 0, expected=True)
    same("whose it was", before.owner_id, bench.me.id)


@AREA.admin_case
def a_user_sets_no_quota(bench: Bench) -> None:
    """Setting quotas is an ADMIN's alone, and another user's are not to be seen."""
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        bench.mine.quotas.SetQuotas(pb.SetQuotasRequest(quotas=pb.Quotas(servers=1)))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND", resource_type="user"):
        bench.mine.quotas.GetQuotas(pb.GetQuotasRequest(owner_id=bench.other.id))
