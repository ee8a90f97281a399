"""What a limit does, as pure decisions: when it is passed, and when it is near."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from morag_meta.errors import Excess, QuotaExceeded, Reason

_NEAR_PERCENT: Final = 80


@dataclass(frozen=True, slots=True)
class Use:
    """How much a user has of a resource, and may have; None stands for no limit."""

    resource: str
    used: int
    limit: int | None
    is_default: bool = False
    """Whether the limit is that of all who have none of their own."""

    @property
    def is_beyond(self) -> bool:
        """Whether the limit is passed."""
        return self.limit is not None and self.used > self.limit

    @property
    def is_near(self) -> bool:
        """Whether 80 % of the limit are used, or more."""
        return self.limit is not None and self.used * 100 >= self.limit * _NEAR_PERCENT

    def __str__(self) -> str:
        """Say it as the trailing metadata does."""
        return f"{self.resource}={self.used}/{self.limit}"


def check(owner_id: str, uses: Iterable[Use]) -> list[str]:
    """Give the warnings of uses that have grown.

    Raises:
        QuotaExceeded: one of them is beyond its limit; all that are stand in it.
    """
    known = list(uses)
    beyond = [use for use in known if use.is_beyond]
    if beyond:
        raise _exceeded(owner_id, beyond)
    return [str(use) for use in known if use.is_near]


def _exceeded(owner_id: str, beyond: list[Use]) -> QuotaExceeded:
    first = beyond[0]
    told = "; ".join(f"{use.resource} would be {use.used} of at most {use.limit}" for use in beyond)
    return QuotaExceeded(
        f"a quota would be passed: {told}",
        reason=Reason.QUOTA_EXCEEDED,
        metadata={
            "owner_id": owner_id,
            "resource": first.resource,
            "limit": str(first.limit),
            "use": str(first.used),
        },
        excesses=[Excess(f"user:{owner_id}", use.resource, use.limit or 0, use.used) for use in beyond],
    )
