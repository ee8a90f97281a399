"""What a case may expect: values, facts, and refusals with everything that a refusal must say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from moragmeta.v1 import errors_pb2

DOMAIN = "meta.morag.dev"
_REASONS = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118
_TRAILER = "grpc-status-details-bin"


class Unmet(Exception):
    """An expectation that was not met."""

    def __init__(self, expected: str, seen: str) -> None:
        """Keep both sides, for people."""
        super().__init__(f"expected {expected}; seen {seen}")
        self.expected = expected
        self.seen = seen or "nothing"


@dataclass
class Refusal:
    """What a refused call said; filled when the block that expects it ends."""

    code: str = ""
    message: str = ""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Say it in one line."""
        parts = [self.code, self.reason, *(f"field {name}" for name in self.fields)]
        return f"{' '.join(filter(None, parts))}: {self.message}"


def same(what: str, seen: Any, expected: Any) -> None:
    """Expect a value."""
    if seen != expected:
        raise Unmet(f"{what}: {expected!r}", repr(seen))


def holds(expected: str, *, fact: bool, seen: Any = "it is not so") -> None:
    """Expect a fact, said in words."""
    if not fact:
        raise Unmet(expected, str(seen))


@contextmanager
def refused(code: str, reason: str, *fields: str, **metadata: str) -> Iterator[Refusal]:
    """Expect the one call in the block to be refused, with a reason, violations of exactly ``fields``.

    The metadata must hold at least what is given. What every refusal owes is checked as well: a known
    reason in the domain of the service, one message in both places, and a named field where one is wrong.
    """
    refusal = Refusal()
    wanted = f"{code} ({reason})"
    try:
        yield refusal
    except grpc.RpcError as error:
        seen = read(error)
    else:
        raise Unmet(wanted, "OK")
    refusal.__dict__.update(seen.__dict__)
    if (seen.code, seen.reason) != (code, reason):
        raise Unmet(wanted, str(seen))
    same(f"the fields of {wanted}", tuple(seen.fields), fields)
    for key, value in metadata.items():
        same(f"metadata[{key!r}] of {wanted}", seen.metadata.get(key), value)
    _complete(error_of=wanted, refusal=seen)


def read(error: Any) -> Refusal:
    """Read the status of a refused call, with its details where it has any.

    Raises:
        Unmet: the details do not say what the status says.
    """
    refusal = Refusal(code=error.code().name, message=error.details() or "")
    packed = dict(error.trailing_metadata() or ()).get(_TRAILER)
    if packed is None:
        return refusal
    status = status_pb2.Status.FromString(packed)
    same("the code in the details", status.code, code_pb2.Code.Value(refusal.code))
    same("the message in the details", status.message, refusal.message)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(info):
            same("the domain of ErrorInfo", info.domain, DOMAIN)
            refusal.reason, refusal.metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            refusal.fields = [violation.field for violation in bad.field_violations]
    return refusal


def _complete(error_of: str, refusal: Refusal) -> None:
    holds(f"a reason of ErrorReason with {error_of}", fact=refusal.reason in _REASONS, seen=refusal)
    holds(f"a message for people with {error_of}", fact=bool(refusal.message.strip()), seen=refusal)
    if refusal.reason == "INVALID_FIELD":
        holds(f"a named field with {error_of}", fact=all(refusal.fields or [""]), seen=refusal)
