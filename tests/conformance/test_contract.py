"""The contract holds on this server: the cases that `morag-meta conformance` runs against any other."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from morag_meta.conformance.case import Case
from morag_meta.conformance.cases import CASES
from morag_meta.conformance.runner import Outcome, Verdict


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id.replace(" ", "_"))
def test_the_contract_holds(outcomes: dict[str, Future[Outcome]], case: Case) -> None:
    """The fact that the case states is so."""
    outcome = outcomes[case.id].result(300)

    assert outcome.verdict is Verdict.PASSED, f"expected {outcome.expected}; seen {outcome.seen}"
