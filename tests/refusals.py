"""What a refused call says, read from its status: for every test that expects a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "meta.morag.dev"


@dataclass
class Refusal:
    """The parts of a status with details; filled when the block that expects it ends."""

    message: str = ""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    retry: float | None = None  # seconds


@contextmanager
def refused(code: str, reason: str = "", *fields: str) -> Iterator[Refusal]:
    """Expect the one call in the block to end with a code, a reason and violations of exactly ``fields``."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    error: Any = caught.value
    read_details(refusal, error)
    assert error.code().name == code, refusal.message
    if reason:
        assert refusal.reason == reason, refusal.message
    assert tuple(refusal.fields) == fields, refusal.message


def read_details(refusal: Refusal, error: Any) -> None:
    """Read what the status of a refused call says."""
    refusal.message = error.details()
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.message == refusal.message
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            assert info.domain == DOMAIN
            refusal.reason, refusal.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            refusal.retry = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(bad):
            refusal.fields = [violation.field for violation in bad.field_violations]
