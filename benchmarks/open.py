"""A composition of the service that asks nobody who they are: no keys, no access, no limits, no audit.

It exists to be measured beside the real one (``costs.py``), and nowhere else: the service has no such switch.
"""

from __future__ import annotations

from typing import Any

from morag_meta.audit.writer import AuditWriter
from morag_meta.auth.authenticator import Authenticator
from morag_meta.auth.principal import Principal, Role
from morag_meta.auth.rates import Rates
from morag_meta.auth.usage import KeyUsage
from morag_meta.rpc import dispatch
from morag_meta.rpc.dispatch import Dispatcher


class _Trusting(Authenticator):
    """Takes every caller for one user, whatever they show."""

    def __init__(self, owner_id: str) -> None:
        self._everybody = Principal(owner_id, Role.USER, None, "", "", None)

    async def authenticate(self, metadata: Any, peer: str = "") -> Principal:
        return self._everybody


class _Generous(Rates):
    """Lets every call through."""

    def admit_key(self, principal: Principal) -> None:
        """Look at nothing."""

    def admit_address(self, peer: str) -> None:
        """Look at nothing."""


class _Forgetful(AuditWriter):
    """Keeps nothing."""

    def __init__(self) -> None:
        """Need no database."""

    def note(self, entry: Any) -> None:
        """Drop it."""


class _Uncounted(KeyUsage):
    """Counts nothing."""

    def __init__(self) -> None:
        """Need no database."""

    def note_call(self, *call: Any, **more: Any) -> None:
        """Drop it."""


def _check_nothing(*_: Any) -> None:
    """Let everybody call everything."""


def open_to_all(dispatcher: Dispatcher, owner_id: str) -> None:
    """Have a dispatcher take every call for one user's, and ask and keep nothing beside."""
    dispatcher._authenticator = _Trusting(owner_id)  # noqa: SLF001 - the service itself has no such door
    dispatcher._rates = _Generous()  # noqa: SLF001
    dispatcher._audit = _Forgetful()  # noqa: SLF001
    dispatcher._usage = _Uncounted()  # noqa: SLF001
    setattr(dispatch, "check_access", _check_nothing)  # noqa: B010 - it is another module's
