"""What the audit keeps, and of which calls. Pure.

How a method declares it stands in ``audit/declaration.py``, and where a call's row is written in
``rpc/trail.py``.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from morag_meta.ids import new_id

SUCCESS: Final = "OK"
CANCELED: Final = "CANCELLED"
REFUSED_EVENT: Final = "call.refuse"
"""The event of a refused call whose method declares none."""

_REFUSED: Final = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})
# Nothing was reached, or the same call may succeed a moment later: the log tells it, and not the audit.
_UNTOLD: Final = frozenset(
    {"INVALID_ARGUMENT", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", CANCELED}
)
_USER: Final = "user"


class Actor(enum.StrEnum):
    """By what a caller was known; names as in the proto enum ``AuditActor``."""

    API_KEY = "API_KEY"
    SESSION = "SESSION"
    PUBLIC = "PUBLIC"
    OPERATOR = "OPERATOR"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row to be. Users are named by their ids here, and by their pseudonyms once it is written.

    ``time`` is None for the time of the transaction. ``target_id`` is a user's id where the target is one.
    """

    event: str
    method: str
    outcome: str = SUCCESS
    reason: str = ""
    actor: Actor = Actor.PUBLIC
    user_id: str = ""
    credential_id: str = ""
    address: str = ""
    agent: str = ""
    target_id: str = ""
    owner_id: str = ""
    request_id: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    time: dt.datetime | None = None
    count: int = 1
    id: str = field(default_factory=new_id)

    @property
    def target_kind(self) -> str:
        """What kind of thing the target is: the first word of the event."""
        return self.event.partition(".")[0]

    @property
    def targets_user(self) -> bool:
        """Whether the target is a user, whom the row names by a pseudonym."""
        return self.target_kind == _USER

    @property
    def likeness(self) -> tuple[str, ...]:
        """What two entries have in common that may stand in one row."""
        return (
            *(self.event, self.method, self.outcome, self.reason, self.user_id),
            *(self.credential_id, self.address, self.agent, self.target_id),
        )


def is_kept(outcome: str, *, recorded: bool, known: bool, public: bool) -> bool:
    """Say whether a call that failed is kept.

    ``recorded``: its method's successful calls are; ``known``: it is known who called; ``public``: anybody
    may call, so that who is refused is refused for what they sent (a password, a token).
    """
    if outcome in _REFUSED:
        return known or (public and recorded)
    return recorded and outcome not in _UNTOLD
