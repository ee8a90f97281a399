"""What a refused call says beside its status: the reason, its metadata, and how long to wait.

The service puts a ``google.rpc.Status`` with ``google.rpc.ErrorInfo`` and ``RetryInfo`` into the trailing
metadata ``grpc-status-details-bin``, as gRPC's richer error model says. The few fields of these messages
that matter are read here by number, so that no package of ``google.rpc`` is needed:

    Status     3 details (Any, repeated)
    ErrorInfo  1 reason   3 metadata (entries: 1 key, 2 value)
    RetryInfo  1 retry_delay (Duration)

What does not live here: what to do about a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

_DETAILS: Final = "grpc-status-details-bin"
_ERROR_INFO: Final = "google.rpc.ErrorInfo"
_RETRY_INFO: Final = "google.rpc.RetryInfo"
# The service was not reached, or asks to be called again.
_AGAIN: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
# What passes by itself, though the service says it with the status of what does not.
_PASSING: Final = frozenset({"CONFLICT", "RATE_LIMITED"})
# What gRPC itself says when a connection broke; from the service these come with a reason.
_BROKEN: Final = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


@dataclass(frozen=True)
class Refusal:
    """Why a call was not answered."""

    code: grpc.StatusCode
    """The status."""
    message: str
    """What the service, or gRPC itself, says for people."""
    reason: str = ""
    """The name of a value of ``ErrorReason`` without its prefix; empty where gRPC itself refused."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What belongs to the reason; errors.proto says which keys."""
    retry_after: float = 0.0
    """For how many seconds the service asks to be left alone; 0 where it does not say."""

    @property
    def may_repeat(self) -> bool:
        """Whether the same call may be answered differently in a moment.

        Only for calls that may be repeated at all: reads, reports, and writes with a ``request_id``; and
        not before ``retry_after``. A user's limit of waiting calls passes where the service gives a time,
        as it does to a call that waits for jobs: others like it end soon, while streams stay.
        """
        broken = self.code in _BROKEN and not self.reason
        makes_room = self.reason == "TOO_MANY_STREAMS" and self.retry_after > 0
        return self.code in _AGAIN or broken or self.reason in _PASSING or makes_room

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.code.name}{f' ({self.reason})' if self.reason else ''}: {self.message}"


def refusal_of(error: Any) -> Refusal:
    """Return what a ``grpc.RpcError`` says; details that cannot be read are left out."""
    code: grpc.StatusCode = error.code()
    message = str(error.details() or "")
    packed = next((value for key, value in error.trailing_metadata() or () if key == _DETAILS), b"")
    reason, metadata, retry_after = "", dict[str, str](), 0.0
    try:
        for detail in map(AnyMessage.FromString, _fields(packed).get(3, ())):
            if detail.TypeName() == _ERROR_INFO:
                reason, metadata = _error_info(detail.value)
            elif detail.TypeName() == _RETRY_INFO:
                retry_after = _retry_delay(detail.value)
    except (DecodeError, UnicodeDecodeError):
        return Refusal(code, message)
    return Refusal(code, message, reason, metadata, retry_after)


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """Return the values of each field of a message that has fields of texts, bytes and messages.

    To a message without fields all are unknown ones, which protobuf keeps and shows.
    """
    found: dict[int, list[bytes]] = {}
    values: Any = UnknownFieldSet(Empty.FromString(message))  # iterable, though its types do not say so
    for value in values:
        found.setdefault(value.field_number, []).append(value.data)
    return found


def _error_info(message: bytes) -> tuple[str, dict[str, str]]:
    fields = _fields(message)
    entries = map(_fields, fields.get(3, ()))
    metadata = {_text(entry, 1): _text(entry, 2) for entry in entries}
    return _text(fields, 1), metadata


def _retry_delay(message: bytes) -> float:
    delays = _fields(message).get(1, [b""])
    return Duration.FromString(delays[-1]).ToTimedelta().total_seconds()


def _text(fields: dict[int, list[bytes]], number: int) -> str:
    return fields.get(number, [b""])[-1].decode()
