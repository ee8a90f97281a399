"""What a call leaves in the audit: one row with its change, or one entry that is written a little later.

What a method declares is read in ``audit/declaration.py``, and which calls are kept is ``audit/rules.py``'s.
The dispatcher records the methods that are one transaction; a method that opens its own calls ``record``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from morag_meta.audit.declaration import Declaration, fields_of, owner_in, value_at
from morag_meta.audit.rules import CANCELED, REFUSED_EVENT, SUCCESS, Actor, Entry, is_kept
from morag_meta.auth.principal import Principal
from morag_meta.errors import MetaError
from morag_meta.forms import uuid
from morag_meta.uow import UnitOfWork


@dataclass(slots=True)
class Trail:
    """What is known for the audit of a call under way.

    ``request`` is kept only where its fields are. ``opened`` says that the answer is a stream and may have
    shown something, however it ends. ``subject`` is who a call without a credential turned out
    to be about, once a servicer knows: whose password, or whose token it was.
    """

    declared: Declaration | None = None
    public: bool = False
    request: Message | None = None
    subject: str = ""
    holder: Principal | None = None
    opened: bool = False

    @property
    def is_recorded(self) -> bool:
        """Whether the call is kept when it succeeds."""
        return self.declared is not None and self.declared.recorded


class Caller(Protocol):
    """What an entry says of a call; ``rpc.call.Call`` is one."""

    principal: Principal
    method: str
    request_id: str
    agent: str
    trail: Trail

    @property
    def address(self) -> str:
        """The address of the peer."""


def record(
    uow: UnitOfWork, call: Caller, response: Message | None = None, *, user_id: str = "", target_id: str = ""
) -> None:
    """Write the row of a call that succeeds, in the transaction of its change.

    ``user_id`` says who it was where the call brings no credential, and ``target_id`` what it was done to,
    where neither the request nor the response does.
    """
    trail = call.trail
    if not trail.is_recorded:
        return
    trail.subject = user_id or trail.subject
    uow.audit.add(_entry(call, SUCCESS, "", response, target_id))


def read(call: Caller, response: Message | None = None) -> Entry | None:
    """Give the entry of a call that only read, if its method declares that it is kept."""
    return _entry(call, SUCCESS, "", response) if call.trail.is_recorded else None


def failed(call: Caller, outcome: str, failure: MetaError) -> Entry | None:
    """Give the entry of a call that failed with a status, if such a failure is kept."""
    trail = call.trail
    trail.holder = failure.holder
    known = bool(trail.holder or call.principal.user_id or trail.subject)
    shown = trail.opened and trail.is_recorded
    if not shown and not is_kept(outcome, recorded=trail.is_recorded, known=known, public=trail.public):
        return None
    return _entry(call, outcome, str(failure.reason))


def canceled(call: Caller) -> Entry | None:
    """Give the entry of a stream whose client left before its end, if its method declares that it is kept."""
    shown = call.trail.opened and call.trail.is_recorded
    return _entry(call, CANCELED, "") if shown else None


def _entry(
    call: Caller, outcome: str, reason: str, response: Message | None = None, target_id: str = ""
) -> Entry:
    trail, principal = call.trail, call.trail.holder or call.principal
    declared, request = trail.declared, trail.request
    if declared is not None and not target_id:
        target_id = _target(declared, request, response, principal.user_id)
    return Entry(
        event=REFUSED_EVENT if declared is None else declared.event,
        method=call.method,
        outcome=outcome,
        reason=reason,
        actor=_actor(principal),
        user_id=principal.user_id or trail.subject,
        credential_id=principal.key_id or principal.session_id,
        address=call.address,
        agent=call.agent,
        target_id=target_id,
        owner_id=owner_in(response) if response is not None else "",
        request_id=call.request_id,
        fields=fields_of(request) if request is not None else {},
    )


def _target(declared: Declaration, request: Message | None, response: Message | None, own: str) -> str:
    if declared.made and response is not None:
        return value_at(response, declared.made)
    if request is None or not declared.target:
        return ""
    named = value_at(request, declared.target)
    if named == "me" or (not named and declared.event.startswith("user.")):
        return own
    return "" if uuid(named) else named  # who is refused may have named anything, such as a person


def _actor(principal: Principal) -> Actor:
    if principal.key_id:
        return Actor.API_KEY
    return Actor.SESSION if principal.session_id else Actor.PUBLIC
