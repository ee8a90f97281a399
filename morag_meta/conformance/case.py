"""What a case is, and how the cases of an area come together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from morag_meta.conformance.bench import Bench

Attempt = Callable[[Bench], None]


@dataclass(frozen=True)
class Case:
    """One fact of the contract, and the function that tries it: it raises where the fact does not hold.

    A case that is ``alone`` runs after all others, as it would end what they have open.
    """

    area: str
    name: str
    fact: str
    attempt: Attempt
    needs_admin: bool
    alone: bool

    @property
    def id(self) -> str:
        """What selects the case: ``area/name``."""
        return f"{self.area}/{self.name}"


class Area:
    """The cases of one part of the contract, in the order in which they are written."""

    def __init__(self, name: str) -> None:
        """Begin without cases."""
        self.name = name
        self.cases: list[Case] = []

    def case(self, attempt: Attempt) -> Attempt:
        """Add a case that the key of any USER can run; its docstring is the fact."""
        return self.add()(attempt)

    def admin_case(self, attempt: Attempt) -> Attempt:
        """Add a case that needs users of its own, or an ADMIN's reach."""
        return self.add(needs_admin=True)(attempt)

    def add(self, *, needs_admin: bool = False, alone: bool = False) -> Callable[[Attempt], Attempt]:
        """Add a case with what it needs."""

        def keep(attempt: Attempt) -> Attempt:
            fact = " ".join((attempt.__doc__ or "").split())
            self.cases.append(Case(self.name, attempt.__name__, fact, attempt, needs_admin, alone))
            return attempt

        return keep
