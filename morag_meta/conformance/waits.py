"""Times, ids of nothing, and facts that take a moment to come true."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta.conformance import expect
from moragmeta.v1.jobs_pb2 import PurgeJobsRequest

PATIENCE_SECONDS = 15.0
"""How long a fact may take to come true: everything that is promised takes less."""
_PAUSE_SECONDS = 0.1


def from_now(seconds: float) -> Timestamp:
    """Give the time in so many seconds, by this machine's clock."""
    return Timestamp(seconds=int(time.time() + seconds))


def all_that_ended(kind: str, document_id: str) -> PurgeJobsRequest:
    """Ask for the jobs of a kind and a document to be removed, if they have ended."""
    request = PurgeJobsRequest(end_time_before=from_now(3600))
    request.filter.kinds.append(kind)
    request.filter.document_id = document_id
    return request


def lasting(seconds: int) -> Duration:
    """Give a length of time."""
    return Duration(seconds=seconds)


def missing_id() -> str:
    """Give an id that nothing has."""
    return str(uuid.uuid4())


def becomes_refused(code: str, reason: str, attempt: Callable[[], Message]) -> None:
    """Expect a call that still goes through to be refused soon: other processes hear of it in 5 s."""

    def is_refused() -> bool:
        try:
            attempt()
        except grpc.RpcError as error:
            seen = expect.read(error)
            if (seen.code, seen.reason) != (code, reason):
                raise
            return True
        return False

    becomes(f"{code} ({reason})", is_refused)


def becomes_allowed(attempt: Callable[[], Message]) -> None:
    """Expect a caller that is not let in to be let in soon."""

    def is_allowed() -> bool:
        try:
            attempt()
        except grpc.RpcError as error:
            if expect.read(error).code != "UNAUTHENTICATED":
                raise
            return False
        return True

    becomes("a caller who is let in", is_allowed)


def becomes(expected: str, probe: Callable[[], bool]) -> None:
    """Expect a fact to come true in time."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not probe():
        if time.monotonic() > give_up:
            raise expect.Unmet(f"{expected} within {PATIENCE_SECONDS:g} s", "it did not happen")
        time.sleep(_PAUSE_SECONDS)
