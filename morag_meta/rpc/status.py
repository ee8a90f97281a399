"""From domain error to gRPC status: the only module that says ``StatusCode``.

Every status made here carries ``google.rpc.ErrorInfo`` (AIP-193), ``BadRequest`` for bad fields and
``RetryInfo`` where trying again helps. What is unforeseen becomes INTERNAL without a word of its cause.
"""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from morag_meta import errors
from morag_meta.errors import MetaError, Reason

DOMAIN: Final = "meta.morag.dev"
DETAILS_KEY: Final = "grpc-status-details-bin"
# Trailers are bounded by HTTP/2 implementations at 8 KiB, all of them together.
_MOST_VIOLATIONS: Final = 16
_LONGEST_TEXT: Final = 300

CODES: Final[dict[type[MetaError], grpc.StatusCode]] = {
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Stale: grpc.StatusCode.ABORTED,
    errors.Collision: grpc.StatusCode.ABORTED,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def code_of(error: BaseException) -> grpc.StatusCode:
    """Give the status code of an error; INTERNAL for what is not a domain error."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def internal(request_id: str) -> MetaError:
    """Say that something unforeseen happened, and which id the logs know it by."""
    return MetaError("internal error", reason=Reason.INTERNAL, metadata={"request_id": request_id})


def details_of(error: MetaError) -> bytes:
    """Give the serialized ``google.rpc.Status`` that travels in the trailers."""
    code = getattr(Code, code_of(error).name)
    status = Status(code=code, message=message_of(error))
    info = ErrorInfo(reason=error.reason, domain=DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[key] = value[:_LONGEST_TEXT]
    _add(status, info)
    if error.violations:
        bad = BadRequest()
        for violation in error.violations[:_MOST_VIOLATIONS]:
            bad.field_violations.add(
                field=violation.field[:_LONGEST_TEXT],
                description=violation.description[:_LONGEST_TEXT],
                reason=error.reason,
            )
        _add(status, bad)
    if error.retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after * 1000))
        _add(status, retry)
    return status.SerializeToString()


def message_of(error: MetaError) -> str:
    """Give the text for people, bounded."""
    return error.message[: 2 * _LONGEST_TEXT]


def _add(status: Status, message: ErrorInfo | BadRequest | RetryInfo) -> None:
    packed = AnyMessage()
    packed.Pack(message)
    status.details.append(packed)
