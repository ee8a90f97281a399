"""What a client reads from a refusal, without any package of google.rpc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any as AnyValue

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from morag_client import Refusal, refusal_of
from moragmeta.v1 import jobs_pb2
from tests.service import User


@dataclass
class _Error(grpc.RpcError):
    status: grpc.StatusCode
    metadata: AnyValue = ()

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str | None:
        return "words"

    def trailing_metadata(self) -> AnyValue:
        return self.metadata


def _packed(*messages: ErrorInfo | RetryInfo | BadRequest) -> bytes:
    status = Status(code=14, message="words")
    for message in messages:
        detail = Any()
        detail.Pack(message)
        status.details.append(detail)
    return status.SerializeToString()


def test_reason_metadata_and_delay_are_read() -> None:
    """The reason, all its metadata and the delay are found among details of other types."""
    info = ErrorInfo(
        reason="SERVER_BUSY", domain="meta.morag.dev", metadata={"a": "1", "b": "Straße", "c": ""}
    )
    retry = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    details = _packed(BadRequest(), info, retry)
    error = _Error(grpc.StatusCode.UNAVAILABLE, (("other", "x"), ("grpc-status-details-bin", details)))
    expected = {"a": "1", "b": "Straße", "c": ""}
    refusal = refusal_of(error)
    assert refusal == Refusal(grpc.StatusCode.UNAVAILABLE, "words", "SERVER_BUSY", expected, 2.5)
    assert str(refusal) == "UNAVAILABLE (SERVER_BUSY): words"


@pytest.mark.parametrize("metadata", [None, (), (("grpc-status-details-bin", b"\xff\xff\xff"),)])
def test_refusal_without_readable_details_is_bare(
    metadata: tuple[tuple[str, str | bytes], ...] | None,
) -> None:
    """Where there are no details, or damaged ones, status and words are all there is."""
    refusal = refusal_of(_Error(grpc.StatusCode.NOT_FOUND, metadata))
    assert refusal == Refusal(grpc.StatusCode.NOT_FOUND, "words")
    assert str(refusal) == "NOT_FOUND: words"


def test_damaged_details_do_not_hide_the_status() -> None:
    """Details of the right type whose own bytes are damaged are left out."""
    detail = Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\x0a\x02\xff\xfe")
    packed = Status(details=[detail]).SerializeToString()
    error = _Error(grpc.StatusCode.ABORTED, (("grpc-status-details-bin", packed),))
    assert refusal_of(error) == Refusal(grpc.StatusCode.ABORTED, "words")


@pytest.mark.parametrize(
    ("status", "reason", "may"),
    [
        (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING", True),
        (grpc.StatusCode.UNAVAILABLE, "", True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", True),
        (grpc.StatusCode.INTERNAL, "", True),
        (grpc.StatusCode.INTERNAL, "INTERNAL", False),
        (grpc.StatusCode.ABORTED, "CONFLICT", True),
        (grpc.StatusCode.ABORTED, "ETAG_MISMATCH", False),
        (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST", False),
        (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TRIES", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", False),
    ],
)
def test_what_a_repeat_may_mend(status: grpc.StatusCode, reason: str, may: bool) -> None:
    """A broken connection, a busy or absent service, a collision and a rate pass; a decision stays."""
    assert Refusal(status, "", reason).may_repeat is may


def test_places_to_wait_in_pass_where_a_time_is_given() -> None:
    """The limit of waiting calls is one to wait for where the service says when to ask again."""
    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert Refusal(status, "", "TOO_MANY_STREAMS", retry_after=1.0).may_repeat
    assert not Refusal(status, "", "QUOTA_EXCEEDED", retry_after=1.0).may_repeat


def test_refusal_of_the_real_service_is_read(user: User) -> None:
    """The reason and metadata of the service's own answer arrive."""
    with pytest.raises(grpc.RpcError) as caught:
        user.channel.jobs.GetJob(jobs_pb2.GetJobRequest(id="01890000-0000-7000-8000-000000000000"))
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert refusal.metadata["resource_type"] == "job"
