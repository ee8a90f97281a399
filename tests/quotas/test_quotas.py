"""Quotas: every way in is bounded, exactly, and what is near its limit says so."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2

from moragmeta.v1 import api_keys_pb2, documents_pb2, jobs_pb2, servers_pb2
from moragmeta.v1 import quotas_pb2 as pb
from tests.quotas.ways import (
    WAYS,
    a_document,
    a_job,
    a_key,
    a_server,
    batch,
    name,
    set_limits,
    together,
    usage,
)
from tests.refusals import refused
from tests.service import Service, User


def _used(user: User, resource: str) -> int:
    return int(getattr(usage(user), resource).used)


@pytest.mark.parametrize("title", WAYS)
def test_every_way_in_is_bounded_to_the_unit(service: Service, user: User, title: str) -> None:
    """One unit short the call is refused and changes nothing; with just enough room it succeeds."""
    way = WAYS[title]
    add = way.prepare(user)
    before = usage(user)
    wanted = _used(user, way.resource) + way.growth
    set_limits(service, user, **{way.resource: wanted - 1})
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED") as refusal:
        add()
    assert refusal.metadata == {
        "owner_id": user.id,
        "resource": way.resource,
        "limit": str(wanted - 1),
        "use": str(wanted),
    }
    assert _used(user, way.resource) == getattr(before, way.resource).used
    set_limits(service, user, **{way.resource: wanted})
    add()
    assert _used(user, way.resource) == wanted


def test_every_resource_has_a_way_in() -> None:
    """The table of ways covers everything that can be bounded."""
    assert {way.resource for way in WAYS.values()} == {
        field.name for field in pb.Usage.DESCRIPTOR.fields if field.message_type
    }


def test_quota_failure_names_each_limit_that_would_be_passed(service: Service, user: User) -> None:
    """A refusal says whose limit of what would be passed, and how large it is."""
    set_limits(service, user, documents=2, storage_bytes=5)
    with pytest.raises(grpc.RpcError) as caught:
        batch(user, [3, 3, 3])
    error: Any = caught.value
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    failure = error_details_pb2.QuotaFailure()
    assert any(detail.Unpack(failure) for detail in status.details)
    told = [(each.subject, each.quota_metric, each.quota_value) for each in failure.violations]
    assert told == [(f"user:{user.id}", "documents", 2), (f"user:{user.id}", "storage_bytes", 5)]
    assert failure.violations[0].description == "documents: 3 would be more than 2"
    assert (_used(user, "documents"), _used(user, "storage_bytes")) == (0, 0)


def test_what_an_admin_makes_counts_for_its_owner(service: Service, user: User) -> None:
    """An ADMIN's creation for a user is bounded by the user's quota, not by the ADMIN's."""
    set_limits(service, user, servers=1)
    a_server(user, by=service.admin)
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED") as refusal:
        a_server(user, by=service.admin)
    assert refusal.metadata["owner_id"] == user.id
    a_server(service.admin)


def test_a_limit_below_the_use_removes_nothing(service: Service, user: User) -> None:
    """Above the limit what does not add is let through, and what frees room makes room."""
    documents = [a_document(user, size_bytes=5) for _ in range(3)]
    set_limits(service, user, documents=2, storage_bytes=12)
    stub = user.channel.documents
    smaller = documents_pb2.Document(id=documents[0].id, size_bytes=4)
    stub.UpdateDocument(documents_pb2.UpdateDocumentRequest(document=smaller))
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
        a_document(user)
    for document in documents[:2]:
        stub.DeleteDocument(documents_pb2.DeleteDocumentRequest(id=document.id))
    a_document(user)
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
        stub.UndeleteDocument(documents_pb2.UndeleteDocumentRequest(id=documents[0].id))


def test_what_ends_makes_room(service: Service, user: User) -> None:
    """A job counts while it is open."""
    set_limits(service, user, open_jobs=1)
    job = a_job(user)
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
        a_job(user)
    user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    a_job(user)


def test_a_key_is_replaced_at_the_limit(service: Service, user: User) -> None:
    """Replacing a key adds none, even where there are more than allowed; the one replaced does not count."""
    key = a_key(user).api_key
    set_limits(service, user, api_keys=1)
    user.channel.api_keys.RotateApiKey(api_keys_pb2.RotateApiKeyRequest(id=key.id))
    assert _used(user, "api_keys") == 2
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
        a_key(user)


def test_replacing_again_and_again_passes_no_limit(service: Service, user: User) -> None:
    """Of replaced keys in their grace as many work as there may be keys; one more is replaced without one."""
    stub = user.channel.api_keys
    key = a_key(user).api_key
    set_limits(service, user, api_keys=2)  # this one, and the one that the user calls with
    for used in (2, 2):
        key = stub.RotateApiKey(api_keys_pb2.RotateApiKeyRequest(id=key.id)).api_key
        assert _used(user, "api_keys") == used
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
        stub.RotateApiKey(api_keys_pb2.RotateApiKeyRequest(id=key.id))
    at_once = api_keys_pb2.RotateApiKeyRequest(id=key.id, grace=Duration())
    first = stub.RotateApiKey(at_once).api_key
    assert _used(user, "api_keys") == 2
    set_limits(service, user, api_keys=3)
    stub.RotateApiKey(api_keys_pb2.RotateApiKeyRequest(id=first.id))
    assert _used(user, "api_keys") == 3


@pytest.mark.parametrize("title", ["ServerService.CreateServer", "DocumentService.CreateDocument"])
def test_of_calls_at_once_exactly_as_many_succeed_as_there_is_room(
    service: Service, user: User, title: str
) -> None:
    """Twelve creations at once against room for five: five succeed, and seven are refused as such."""
    _race(service, user, title, callers=12, room=5)


def test_jobs_and_keys_at_once_are_bounded_as_well(service: Service, user: User) -> None:
    """The same of jobs and API keys, of which a run's user has one key already."""
    _race(service, user, "JobService.CreateJob", callers=12, room=5)
    _race(service, user, "ApiKeyService.CreateApiKey", callers=12, room=5)


def test_batches_at_once_pass_no_limit(service: Service, user: User) -> None:
    """Batches of three against room for ten: three succeed as a whole, and one document has room left."""
    set_limits(service, user, documents=10)
    assert together(8, lambda: batch(user, [0, 0, 0])).count("OK") == 3
    assert _used(user, "documents") == 9


def _race(service: Service, user: User, title: str, *, callers: int, room: int) -> None:
    way = WAYS[title]
    add = way.prepare(user)
    before = _used(user, way.resource)
    set_limits(service, user, **{way.resource: before + room})
    answers = together(callers, add)
    assert sorted(answers) == ["OK"] * room + ["RESOURCE_EXHAUSTED"] * (callers - room)
    assert _used(user, way.resource) == before + room


def test_from_eighty_percent_on_a_write_warns(service: Service, user: User) -> None:
    """The trailing metadata names what the call added to and what is near its limit, and nothing else."""
    set_limits(service, user, servers=5, documents=1)
    seen = []
    for _ in range(5):
        server = servers_pb2.Server(name=name(), kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
        request = servers_pb2.CreateServerRequest(server=server)
        _, call = user.channel.servers.CreateServer.with_call(request)
        seen.append([value for key, value in call.trailing_metadata() if key == "morag-quota-warning"])
    assert seen == [[], [], [], ["servers=4/5"], ["servers=5/5"]]
    assert usage(user).servers == pb.ResourceUse(used=5, limit=5, near_limit=True)
    assert usage(user).databases == pb.ResourceUse()


def test_limits_are_set_one_by_one_and_lifted(service: Service, user: User) -> None:
    """A mask names the limits to write; one that it names and the message leaves out is lifted."""
    unset = user.channel.quotas.GetQuotas(pb.GetQuotasRequest())
    assert unset == pb.Quotas(owner_id=user.id, etag=unset.etag)
    set_limits(service, user, servers=0, documents=7)
    found = user.channel.quotas.GetQuotas(pb.GetQuotasRequest(owner_id="me"))
    assert (found.servers, found.HasField("servers"), found.documents) == (0, True, 7)
    assert not found.HasField("open_jobs")
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
        a_server(user)
    request = pb.SetQuotasRequest(
        quotas=pb.Quotas(owner_id=user.id), update_mask=FieldMask(paths=["servers"])
    )
    lifted = service.admin.channel.quotas.SetQuotas(request)
    assert not lifted.HasField("servers")
    assert lifted.documents == 7
    a_server(user)


def test_only_an_admin_sets_quotas_and_reads_anothers(service: Service, user: User) -> None:
    """A user reads the own quotas alone, and sets none."""
    with refused("PERMISSION_DENIED", "ROLE_TOO_LOW"):
        user.channel.quotas.SetQuotas(pb.SetQuotasRequest(quotas=pb.Quotas(servers=1)))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        user.channel.quotas.GetQuotas(pb.GetQuotasRequest(owner_id=service.admin.id))
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        user.channel.quotas.GetUsage(pb.GetUsageRequest(owner_id=service.admin.id))
    found = service.admin.channel.quotas.GetUsage(pb.GetUsageRequest(owner_id=user.id))
    assert (found.owner_id, found.api_keys.used) == (user.id, 1)
