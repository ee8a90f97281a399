"""Whether a key that another service was sent is to be let in there: the decision. Pure.

What is known of the key comes from ``auth/authenticator.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from morag_meta.auth.addresses import canonical_address, is_allowed
from morag_meta.auth.principal import Principal, Role
from morag_meta.auth.rates import Allowance
from morag_meta.auth.standing import UNKNOWN, Standing, Verdict
from morag_meta.errors import invalid

IP_NOT_ALLOWED: Final = "IP_NOT_ALLOWED"
INSUFFICIENT_SCOPE: Final = "INSUFFICIENT_SCOPE"
RATE_LIMITED: Final = "RATE_LIMITED"
OF_EVERYBODY: Final = "api_keys:verify:all"


@dataclass(frozen=True, slots=True)
class Question:
    """What the other service wants to know: a scope that it needs, and the address of its caller."""

    scope: str
    address: str


def question(scope: str, address: str, known: Mapping[str, Role]) -> Question:
    """Give the question of a request; ``known`` maps each scope to the least role that can use it.

    Raises:
        Invalid: the scope is not known, or the address is none.
    """
    if scope and scope not in known:
        raise invalid("scope", f"is not a scope; known are {', '.join(sorted(known))}")
    canonical = canonical_address(address)
    if address and not canonical:
        raise invalid("address", "must be an IPv4 or IPv6 address, or unix")
    return Question(scope, canonical)


def visible(standing: Standing, asker: Principal) -> Standing:
    """Give what the asker may know: of keys of their own, and by a scope of its own of everybody's."""
    holder = standing.holder
    if holder is None or holder.user_id == asker.user_id or asker.has_scope(OF_EVERYBODY):
        return standing
    return UNKNOWN


def verdict_of(
    standing: Standing, asked: Question, known: Mapping[str, Role], allowance: Allowance | None
) -> str:
    """Decide; the first reason to refuse counts."""
    holder = standing.principal
    if holder is None:
        return Verdict(standing.verdict)
    if not is_allowed(holder.addresses, asked.address):
        return IP_NOT_ALLOWED
    if asked.scope and not _may_use(holder, asked.scope, known[asked.scope]):
        return INSUFFICIENT_SCOPE
    if allowance is not None and not allowance.left:
        return RATE_LIMITED
    return Verdict.VALID


def _may_use(holder: Principal, scope: str, least: Role) -> bool:
    """Whether a key holds a scope that its owner's role covers; one that ends in ``:all`` is beside roles."""
    return holder.has_scope(scope) and (scope.endswith(":all") or holder.role >= least)
