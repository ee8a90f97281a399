"""From domain error to gRPC status: the only module that says ``StatusCode``.

Every status made here carries ``google.rpc.ErrorInfo`` (AIP-193), ``BadRequest`` for bad fields,
``QuotaFailure`` for limits and ``RetryInfo`` where trying again helps. What is unforeseen becomes INTERNAL
without a word of its cause.
"""

from __future__ import annotations

import math
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from morag_meta import errors
from morag_meta.errors import MetaError, QuotaExceeded, Reason

DOMAIN: Final = "meta.morag.dev"
DETAILS_KEY: Final = "grpc-status-details-bin"
# Trailers are bounded by HTTP/2 implementations at 8 KiB, all of them together; details travel in base64,
# and a byte of the message that is not plain ASCII as three. All limits are bytes of UTF-8.
_MOST_DETAILS: Final = 4096
_MOST_METADATA: Final = 1536
_LONGEST_MESSAGE: Final = 512
_LONGEST_TEXT: Final = 300
_BELOW_ANY_CLOCK: Final = 1e-6  # ms: what floats add to a number of whole milliseconds
_FRAMING: Final = 64  # the name of a detail's type, and the lengths around it

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
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
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
        if info.ByteSize() < _MOST_METADATA:
            info.metadata[_cut(key)] = _cut(value)
    _add(status, info)
    if error.retry_after is not None:
        _add(status, _retry_info(error.retry_after))
    if isinstance(error, QuotaExceeded):
        _add(status, _quota_failure(error))
    if error.violations:
        _add(status, _bad_request(error, _MOST_DETAILS - status.ByteSize()))
    return status.SerializeToString()


def _retry_info(seconds: float) -> RetryInfo:
    """Tell a delay in whole milliseconds, never less than it is: who waits as told is not sent away again."""
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(math.ceil(seconds * 1000 - _BELOW_ANY_CLOCK))
    return retry


def _bad_request(error: MetaError, room: int) -> BadRequest:
    """Tell as many violations as there is room for, in bytes, and the first one in any case."""
    bad = BadRequest()
    for violation in error.violations:
        bad.field_violations.add(
            field=_cut(violation.field), description=_cut(violation.description), reason=error.reason
        )
        if len(bad.field_violations) > 1 and bad.ByteSize() > room - _FRAMING:
            del bad.field_violations[-1]
            break
    return bad


def _quota_failure(error: QuotaExceeded) -> QuotaFailure:
    failure = QuotaFailure()
    for excess in error.excesses:
        failure.violations.add(
            subject=excess.subject,
            description=f"{excess.resource}: {excess.use} would be more than {excess.limit}",
            api_service=DOMAIN,
            quota_metric=excess.resource,
            quota_value=excess.limit,
        )
    return failure


def message_of(error: MetaError) -> str:
    """Give the text for people, bounded."""
    return _cut(error.message, _LONGEST_MESSAGE)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: MetaError) -> NoReturn:
    """End a call of a service that is not dispatched, such as health, with an error and its details."""
    await context.abort(code_of(error), message_of(error), ((DETAILS_KEY, details_of(error)),))


def _cut(text: str, length: int = _LONGEST_TEXT) -> str:
    """Cut a text to so many bytes of UTF-8, between characters."""
    return text if len(text) * 4 <= length else text.encode()[:length].decode(errors="ignore")


def _add(status: Status, message: ErrorInfo | BadRequest | QuotaFailure | RetryInfo) -> None:
    packed = AnyMessage()
    packed.Pack(message)
    status.details.append(packed)
