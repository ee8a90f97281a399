"""From errors to statuses: every error has a code, every reason a proto value, and details stay small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import Code
from hypothesis import given
from hypothesis import strategies as st

from morag_meta import errors
from morag_meta.errors import Exhausted, Invalid, MetaError, Reason, Unavailable, Violation
from morag_meta.rpc import status
from moragmeta.v1 import errors_pb2
from tests.rpc.trial import Question, Trial

PREFIX = "ERROR_REASON_"
# An HTTP/2 peer may refuse trailers of more than 8 KiB; binary ones travel in base64, others escaped.
MOST_TRAILERS = 8192


def _kinds(kind: type[MetaError] = MetaError) -> Iterator[type[MetaError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds(child)


def _details(error: MetaError) -> list[Any]:
    found = []
    for packed in status_pb2.Status.FromString(status.details_of(error)).details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        message = kind()
        assert packed.Unpack(message)
        found.append(message)
    return found


def test_every_domain_error_has_a_status_of_its_own() -> None:
    """No kind of domain error falls through to INTERNAL, and each code is a status that clients know."""
    for kind in _kinds():
        code = status.code_of(kind.__new__(kind))
        assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK), kind
        assert Code.Value(code.name) == code.value[0]
    own = {kind for kind in _kinds() if kind.__module__ == errors.__name__}
    assert own == set(status.CODES)


def test_what_is_no_domain_error_is_internal() -> None:
    """Anything else is INTERNAL, whatever it is."""
    for error in (ValueError("x"), KeyboardInterrupt(), MetaError("x", reason=Reason.INTERNAL)):
        assert status.code_of(error) is grpc.StatusCode.INTERNAL


def test_reasons_are_those_of_the_proto() -> None:
    """The reasons of the code and the values of the proto's enum are the same, in the same order."""
    declared = [name.removeprefix(PREFIX) for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name]
    assert declared == ["UNSPECIFIED", *Reason]


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_travels_under_its_name(reason: Reason) -> None:
    """ErrorInfo carries the reason, the domain of the service and the metadata."""
    (info,) = _details(errors.WrongState("no", reason=reason, metadata={"state": "FAILED"}))
    assert (info.reason, info.domain) == (reason.name, "meta.morag.dev")
    assert dict(info.metadata) == {"state": "FAILED"}


def test_violations_and_delays_are_told() -> None:
    """Each field that breaks a rule is a violation, and a delay is a RetryInfo, to the millisecond."""
    violations = [Violation("server.port", "must be at least 1"), Violation("server.name", "is required")]
    _, bad = _details(Invalid("no", reason=Reason.INVALID_FIELD, violations=violations))
    assert [(v.field, v.description, v.reason) for v in bad.field_violations] == [
        ("server.port", "must be at least 1", "INVALID_FIELD"),
        ("server.name", "is required", "INVALID_FIELD"),
    ]
    _, retry = _details(Unavailable("busy", reason=Reason.SERVER_BUSY, retry_after=1.25))
    assert retry.retry_delay.ToMilliseconds() == 1250


@pytest.mark.parametrize("excess", [0.0, 1e-5])
def test_a_delay_is_told_in_whole_milliseconds_and_never_short(excess: float) -> None:
    """A number of them is told as it is, and what is more than it as the next one."""
    for number in range(1, 20_000):
        seconds = number / 1000 + excess
        _, retry = _details(Exhausted("wait", reason=Reason.RATE_LIMITED, retry_after=seconds))
        assert retry.retry_delay.ToMilliseconds() == number + (excess > 0)


_TEXT = st.text(max_size=300) | st.builds(str.__mul__, st.characters(codec="utf-8"), st.integers(0, 5000))
_ERRORS = st.builds(
    Invalid,
    _TEXT,
    reason=st.sampled_from(Reason),
    metadata=st.dictionaries(st.text(max_size=40), _TEXT, max_size=6),
    violations=st.lists(st.builds(Violation, _TEXT, _TEXT), max_size=60),
    retry_after=st.none() | st.floats(0, 1e6),
)


@given(_ERRORS)
def test_trailers_stay_within_what_http2_peers_take(error: MetaError) -> None:
    """However long the texts of an error are, its trailers keep within 8 KiB and say the reason."""
    details, message = status.details_of(error), status.message_of(error)
    escaped = sum(1 if " " <= c <= "~" and c != "%" else 3 * len(c.encode()) for c in message)
    assert escaped + len(details) * 4 / 3 < MOST_TRAILERS - 512  # other trailers want some room
    parsed = status_pb2.Status.FromString(details)
    assert parsed.message == message
    info = error_details_pb2.ErrorInfo()
    assert parsed.details[0].Unpack(info)
    assert info.reason == error.reason


def test_the_worst_error_reaches_a_client_whole(trial: Trial) -> None:
    """An error with every text at its longest arrives with code, reason and violations."""

    def refuse(*_: Any) -> Any:
        worst = "\U0001f600" * 5000
        violations = [Violation(worst, worst) for _ in range(50)]
        raise Invalid(
            worst, reason=Reason.INVALID_FIELD, violations=violations, metadata={"a": worst, "b": worst}
        )

    trial.does(refuse)
    with pytest.raises(grpc.RpcError) as caught:
        trial.unary("Read")(Question(), timeout=5)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert len(details.details) == 2


def test_many_short_violations_are_all_told() -> None:
    """Sixteen violations of usual length fit."""
    wrong = [Violation(f"requests[{n}].document.name", "is required") for n in range(16)]
    _, bad = _details(Invalid("no", reason=Reason.INVALID_FIELD, violations=wrong))
    assert [v.field for v in bad.field_violations] == [v.field for v in wrong]
