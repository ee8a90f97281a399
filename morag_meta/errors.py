"""The domain errors: what can go wrong, said without gRPC and without SQL.

Two doors use them: the unit of work turns a driver's exceptions into them, and ``rpc/status.py`` turns
them into statuses. Nothing else in the service knows a status code or a driver's exception.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Reason(enum.StrEnum):
    """The machine-readable reasons; the names of the proto enum ``ErrorReason`` without its prefix."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        del start, count, last_values
        return name

    INVALID_FIELD = enum.auto()
    UNDECODABLE_REQUEST = enum.auto()
    INVALID_PAGE_TOKEN = enum.auto()
    REQUEST_ID_REUSED = enum.auto()
    INVALID_UPDATE_MASK = enum.auto()
    INVALID_RESUME_TOKEN = enum.auto()
    CREDENTIAL_MISSING = enum.auto()
    CREDENTIAL_INVALID = enum.auto()
    LOGIN_FAILED = enum.auto()
    REFRESH_TOKEN_INVALID = enum.auto()
    PASSWORD_WRONG = enum.auto()
    RESET_TOKEN_INVALID = enum.auto()
    ROLE_TOO_LOW = enum.auto()
    SCOPE_MISSING = enum.auto()
    SESSION_REQUIRED = enum.auto()
    OWNER_NOT_ALLOWED = enum.auto()
    REGISTRATION_DISABLED = enum.auto()
    SCOPE_NOT_ALLOWED = enum.auto()
    FILTER_NOT_ALLOWED = enum.auto()
    ADDRESS_NOT_ALLOWED = enum.auto()
    KEY_NARROWED = enum.auto()
    GRANT_TOO_LOW = enum.auto()
    RESOURCE_NOT_FOUND = enum.auto()
    RESOURCE_EXISTS = enum.auto()
    NOT_DELETED = enum.auto()
    JOB_ALREADY_OPEN = enum.auto()
    ETAG_MISMATCH = enum.auto()
    CONFLICT = enum.auto()
    INVALID_STATE = enum.auto()
    HAS_CHILDREN = enum.auto()
    STALE_ATTEMPT = enum.auto()
    JOB_ENDED = enum.auto()
    LAST_ADMIN = enum.auto()
    USER_ACTIVE = enum.auto()
    REPORT_NUMBER_USED = enum.auto()
    LEASE_LOST = enum.auto()
    TOO_MANY_TRIES = enum.auto()
    RATE_LIMITED = enum.auto()
    POSITION_BEYOND_END = enum.auto()
    POSITION_TRIMMED = enum.auto()
    QUOTA_EXCEEDED = enum.auto()
    SERVER_BUSY = enum.auto()
    DATABASE_UNAVAILABLE = enum.auto()
    COMMIT_UNKNOWN = enum.auto()
    SERVER_DRAINING = enum.auto()
    STREAM_AGED = enum.auto()
    READER_TOO_SLOW = enum.auto()
    DEADLINE_IN_QUEUE = enum.auto()
    TOO_MANY_STREAMS = enum.auto()
    INTERNAL = enum.auto()


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks its rule: the path in the request, and what is wrong, with the limit."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Excess:
    """One limit that would be passed: whose, of what, how much is allowed, and how much it would be."""

    subject: str
    resource: str
    limit: int
    use: int


class MetaError(Exception):
    """An error that a caller may see.

    ``reason`` is machine-readable, ``metadata`` repeats what is dynamic in the message (AIP-193), and
    ``retry_after`` is in seconds where trying again helps. ``holder`` is the principal to whom a credential
    was given that is not accepted, None where that is not known: for the audit, never told to a caller.
    """

    holder: Any = None

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
    ) -> None:
        """Make the error; the message is for people, everything else for programs."""
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after


class Invalid(MetaError):
    """The request is wrong whatever the state of the system."""


class NotFound(MetaError):
    """The resource does not exist, or is not the caller's."""


class AlreadyExists(MetaError):
    """Something unique is taken, or the change was already made."""


class Stale(MetaError):
    """The caller's view is old, or concurrent changes kept colliding: read again, then repeat."""


class WrongState(MetaError):
    """The state of the resource does not allow the change."""


class Unauthenticated(MetaError):
    """It is not known who calls."""


class Forbidden(MetaError):
    """It is known who calls, and they may not do this."""


class OutOfRange(MetaError):
    """The position in a stream is beyond what is kept."""


class Exhausted(MetaError):
    """The caller has used up what one caller may; ``retry_after`` is given where time alone makes room."""


class QuotaExceeded(Exhausted):
    """A user would have more than allowed; trying again helps only once there is less."""

    def __init__(
        self, message: str, *, reason: Reason, metadata: Mapping[str, str], excesses: Sequence[Excess]
    ) -> None:
        """Make the error, with every limit that would be passed."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.excesses = tuple(excesses)


class Unavailable(MetaError):
    """The service cannot answer now; the same call may succeed later."""


class DeadlineExceeded(MetaError):
    """The caller's deadline passed before the call ran."""


class Collision(MetaError):
    """A concurrent change won; the unit of work is to be run again from its start.

    Never reaches a client: the runner repeats the unit, and answers ``Stale`` when it keeps colliding.
    """

    def __init__(self, message: str = "a concurrent change won") -> None:
        """Make the signal."""
        super().__init__(message, reason=Reason.CONFLICT)


_SPOKEN = {"api_key": ("an", "API key")}


def invalid(field: str, description: str) -> Invalid:
    """Refuse one field of the request."""
    return Invalid(
        f"{field}: {description}", reason=Reason.INVALID_FIELD, violations=[Violation(field, description)]
    )


def not_found(resource_type: str, resource_id: str) -> NotFound:
    """Say that a resource is missing; the same words whether it is missing or somebody else's."""
    return NotFound(
        f"{_spoken(resource_type)[1]} {resource_id} not found",
        reason=Reason.RESOURCE_NOT_FOUND,
        metadata={"resource_type": resource_type, "resource_id": resource_id},
    )


def exists(resource_type: str, field: str, existing_id: str = "") -> AlreadyExists:
    """Say that a unique field is taken, and by which of the caller's own rows where that is known."""
    metadata = {"resource_type": resource_type, "field": field}
    if existing_id:
        metadata["existing_id"] = existing_id
    article, name = _spoken(resource_type)
    return AlreadyExists(
        f"{article} {name} with this {field} already exists",
        reason=Reason.RESOURCE_EXISTS,
        metadata=metadata,
    )


def wrong_state(resource_type: str, state: str, message: str) -> WrongState:
    """Refuse a change that the state of the resource does not allow."""
    return WrongState(
        message, reason=Reason.INVALID_STATE, metadata={"resource_type": resource_type, "state": state}
    )


def _spoken(resource_type: str) -> tuple[str, str]:
    return _SPOKEN.get(resource_type, ("a", resource_type))
