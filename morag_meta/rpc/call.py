"""One call: who makes it, and what it may reach.

It is an argument of every method. How a caller proves who they are stands in ``auth/authenticator.py``,
and what a method asks of them in ``rpc/access.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.narrowing import Narrowing, Reach, narrowed
from morag_meta.auth.principal import Principal, Role
from morag_meta.auth.sharing import Grantee, Level
from morag_meta.db.statements import EVERYONE
from morag_meta.errors import Forbidden, Reason
from morag_meta.rpc.peers import address_of
from morag_meta.rpc.trail import Trail

_NOT_ASKED: Final = frozenset({"request_id", "wait"})
"""Fields by which a repeat may differ: its name, and how long there still is time to wait for an answer."""


@dataclass(slots=True)
class Call:
    """The context of one call.

    ``method`` is "Service.Method", ``request_id`` the id in the logs (not the request's own field),
    ``deadline`` monotonic seconds, ``agent`` the client's user agent, bounded, ``replayed`` whether a
    request id was found to be used, and ``quota_warnings`` what is near its limit, once a write is committed;
    ``trail`` is what the call leaves in the audit.
    """

    principal: Principal
    method: str
    request_id: str
    peer: str
    deadline: float | None = None
    agent: str = ""
    replayed: bool = False
    quota_warnings: list[str] = field(default_factory=list)
    hasher: KeyHasher | None = field(default=None, repr=False)
    trail: Trail = field(default_factory=Trail)

    @property
    def address(self) -> str:
        """The address of the peer; empty where it has none, as on a Unix socket."""
        return address_of(self.peer)

    @property
    def own(self) -> str:
        """The caller's user id; empty for a public method."""
        return self.principal.user_id

    def user_named(self, sent: str) -> str:
        """Read the id of a user, in which ``me`` is the caller."""
        return self.own if sent == "me" else sent

    @property
    def narrowing(self) -> Narrowing | None:
        """What the caller's API key is narrowed to, if it is."""
        return self.principal.narrowing

    @property
    def reach(self) -> Reach:
        """What the caller may touch row by row: everyone's for an ADMIN, otherwise their own.

        Of a narrowed API key what lies within that. What is in no database, and so within no narrowing,
        goes by ``whole_reach``.
        """
        return Reach(EVERYONE if self.principal.role is Role.ADMIN else self.own, self.narrowing)

    @property
    def whole_reach(self) -> str:
        """Whose rows the caller may touch one by one, whatever they are.

        Raises:
            Forbidden: the caller's API key is narrowed (KEY_NARROWED).
        """
        if self.narrowing is not None:
            raise narrowed("the API key is narrowed to some databases or servers")
        return self.reach.owner_id

    def grantee(self, needs: Level) -> Grantee | None:
        """Give the caller as one to whom what is beyond their reach may be shared; None for an ADMIN."""
        return None if self.principal.role is Role.ADMIN else Grantee(self.own, needs, self.narrowing)

    def reach_of(self, owner_id: str) -> Reach:
        """What a list shows, and whose a new row becomes: the caller's own when ``owner_id`` is empty.

        Raises:
            Forbidden: somebody who is not an ADMIN names another owner (OWNER_NOT_ALLOWED).
        """
        return Reach(self.owner_for(owner_id), self.narrowing)

    def owner_for(self, owner_id: str) -> str:
        """Whose something is that is in no database: the caller's own when ``owner_id`` is empty.

        Raises:
            Forbidden: as ``reach_of``.
        """
        if not owner_id or owner_id == self.own:
            return self.own
        if self.principal.role is not Role.ADMIN:
            raise Forbidden("only an ADMIN may name another owner", reason=Reason.OWNER_NOT_ALLOWED)
        return owner_id

    def fingerprint(self, request: Any) -> str:
        """Give a keyed hash of what a request asks for; no password can be guessed from it.

        What the caller's key is narrowed to is part of it: no key is told what another one did that reaches
        more.
        """
        return self.fingerprints(request)[0]

    def fingerprints(self, request: Any) -> tuple[str, ...]:
        """Give the hashes under which a request may be kept: by each key in force, ``fingerprint`` first."""
        if self.hasher is None:
            raise RuntimeError(f"{self.method} was called without what hashes requests")
        bare = type(request)()
        bare.CopyFrom(request)
        for name in _NOT_ASKED.intersection(bare.DESCRIPTOR.fields_by_name):
            bare.ClearField(name)
        data = bare.SerializeToString(deterministic=True)
        if self.narrowing is not None:
            data += repr(self.narrowing).encode()
        return self.hasher.digests(data)
