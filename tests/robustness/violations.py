"""What a validator complains of: a sentence, and the shortest piece of history that shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.robustness.case import Case
from tests.robustness.history import Record, to_line


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    validator: str
    text: str
    evidence: tuple[Record, ...] = ()

    def __str__(self) -> str:
        """Show the sentence, and under it the evidence."""
        return "\n".join([f"{self.validator}: {self.text}", *(f"    {to_line(e)}" for e in self.evidence)])


Validator = Callable[[Case], list[Violation]]


def shown(violations: Sequence[Violation], most: int = 20) -> str:
    """Write at most so many of them, those with the shortest evidence first."""
    first = sorted(violations, key=lambda violation: len(violation.evidence))[:most]
    left = len(violations) - len(first)
    return "\n".join([*map(str, first), *([f"... and {left} more"] if left else [])])
