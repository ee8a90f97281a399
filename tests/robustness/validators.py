"""Every validator, and the judgment of a whole history."""

from __future__ import annotations

from tests.robustness.case import Case
from tests.robustness.history import History
from tests.robustness.leases import LEASES
from tests.robustness.streams import STREAMS
from tests.robustness.violations import Validator, Violation

VALIDATORS: tuple[Validator, ...] = (*STREAMS, *LEASES)


def judge(history: History) -> list[Violation]:
    """Give everything in a history that breaks a promise."""
    case = Case(history)
    return [violation for validator in VALIDATORS for violation in validator(case)]
