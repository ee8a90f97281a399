"""The model's state, who calls, and what is within a caller's reach.

What each method does to the state stands in ``accounts.py``, ``keys.py``, ``places.py``, ``documents.py``,
``work.py`` and their like; none of them imports the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tests.model.contract import EVERY_SCOPE, METHODS, ROLES, Method
from tests.model.steps import GARBAGE, NOBODY, ROOT, ROOT_KEY, Answer, Refused, Step, denied, missing
from tests.model.things import (
    Database,
    Document,
    Grant,
    Job,
    Key,
    Owned,
    Server,
    Session,
    User,
    Worker,
    copied,
)


@dataclass(frozen=True)
class Principal:
    """A proven caller; ``scopes`` is None where every scope is held."""

    user: str
    role: str
    scopes: frozenset[str] | None = None
    key: str = ""
    session: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether the caller reaches everybody's rows."""
        return self.role == "ADMIN"

    def has(self, scope: str) -> bool:
        """Whether the credential holds a scope."""
        if self.scopes is None:
            return self.is_admin or not scope.endswith(":all")
        return scope in self.scopes


AFTER: Final = 10**6
"""More steps than a walk has: what ends later than these ends after the walk."""

_COUNTED: Final = ("keys", "servers", "databases", "documents", "jobs")

T = TypeVar("T", bound=Owned)
Given = Mapping[str, Any]
Rule = Callable[["World", Principal, Given, Step], Any]
RULES: Final[dict[str, Rule]] = {}
"""What each method that the model knows does."""


def rule(method: str) -> Callable[[Rule], Rule]:
    """Say what a method does."""

    def keep(does: Rule) -> Rule:
        RULES[method] = does
        return does

    return keep


class World:
    """Everything that there is."""

    def __init__(self, email: str) -> None:
        """Begin with the ADMIN, who has this email."""
        self.users = {ROOT: User(ROOT, email, "Test User", "ADMIN")}
        self.keys = {ROOT_KEY: Key(ROOT_KEY, ROOT, "test", (EVERY_SCOPE,))}
        self.sessions: dict[str, Session] = {}
        self.servers: dict[str, Server] = {}
        self.databases: dict[str, Database] = {}
        self.grants: dict[tuple[str, str], Grant] = {}
        self.documents: dict[str, Document] = {}
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Worker] = {}
        self.turns: dict[tuple[str, int], float] = {}
        self.limits: dict[str, dict[str, int]] = {}
        self.added: set[tuple[str, str]] = set()
        self.step = 0

    def answer(self, step: Step) -> Answer:
        """Take a step, and say what is answered."""
        self.step, self.added = step.number, set()
        method = METHODS[step.method]
        try:
            caller = Principal("", "VIEWER", frozenset())
            if not method.public:
                caller = self.caller(step.caller)
                _check(method, caller)
            return Answer(content=RULES[step.method](self, caller, step.given, step))
        except Refused as refused:
            return refused.answer

    def kept(self) -> dict[str, dict[str, Any]]:
        """Give what quotas count as it is, for a call that may be refused after it did something."""
        return {
            name: {label: copied(thing) for label, thing in getattr(self, name).items()} for name in _COUNTED
        }

    def restore(self, kept: dict[str, dict[str, Any]]) -> None:
        """Have it as it was."""
        for name, things in kept.items():
            setattr(self, name, things)

    def caller(self, label: str) -> Principal:
        """Say whom a credential proves."""
        if label == NOBODY:
            raise Refused("UNAUTHENTICATED", "CREDENTIAL_MISSING")
        found = None if label == GARBAGE else self.standing(label)
        if found is None:
            raise Refused("UNAUTHENTICATED", "CREDENTIAL_INVALID")
        return found

    def standing(self, label: str) -> Principal | None:
        """Say whom a key or a session proves; None where it does not stand."""
        key, session = self.keys.get(label), self.sessions.get(label)
        holder = key or session
        if holder is None or not self.users[holder.owner].active:
            return None
        role = self.users[holder.owner].role
        if key is not None:
            if self.state_of(key) != "ACTIVE":
                return None
            scopes = None if EVERY_SCOPE in key.scopes else frozenset(key.scopes)
            return Principal(key.owner, role, scopes, key=label)
        return None if session is None or session.over else Principal(holder.owner, role, session=label)

    def state_of(self, key: Key) -> str:
        """Say whether a key works, whatever its owner's standing."""
        if key.revoked:
            return "REVOKED"
        if key.disabled:
            return "DISABLED"
        return "EXPIRED" if key.end is not None and key.end < AFTER else "ACTIVE"

    def own(self, things: Mapping[str, T], label: str, caller: Principal) -> T:
        """Give what is in the caller's own reach."""
        found = things.get(label)
        if found is None or not (caller.is_admin or found.owner == caller.user):
            raise missing()
        return found

    def level(self, database: str, caller: Principal) -> int:
        """Say what the caller may do in a database of another; 0 where it is not shared."""
        grant = self.grants.get((database, caller.user))
        return 0 if grant is None or caller.is_admin else grant.level

    def shared(
        self, things: Mapping[str, T], label: str, caller: Principal, needs: int, place: Callable[[T], str]
    ) -> T:
        """Give what is in the caller's own reach, or in a database that is shared for enough."""
        found = things.get(label)
        if found is not None and (caller.is_admin or found.owner == caller.user):
            return found
        level = 0 if found is None else self.level(place(found), caller)
        if found is None or not level:
            raise missing()
        if level < needs:
            raise denied("GRANT_TOO_LOW")
        return found

    def owner_of_list(self, caller: Principal, owner: str) -> str:
        """Say whose rows a list shows, or whose a new row becomes."""
        if owner in ("", caller.user):
            return caller.user
        if not caller.is_admin:
            raise denied("OWNER_NOT_ALLOWED")
        return owner


def _check(method: Method, caller: Principal) -> None:
    if ROLES[caller.role] < method.least_role:
        raise denied("ROLE_TOO_LOW")
    if not caller.key or method.any_scope:
        return
    if not method.scopes:
        raise denied("SESSION_REQUIRED")
    if not any(map(caller.has, method.scopes)):
        raise denied("SCOPE_MISSING")


def of(owner: str, things: Iterable[T]) -> list[T]:
    """Give what is an owner's, or of everybody, the newest first."""
    return [thing for thing in things if owner in ("-", thing.owner)][::-1]


def check_etag(given: Given) -> None:
    """Refuse an etag, which in a walk is always a wrong one."""
    if given.get("etag"):
        raise Refused("ABORTED", "ETAG_MISMATCH")
