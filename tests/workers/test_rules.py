"""Which jobs a worker takes, without a database."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.workers.rules import EVERYBODY, Appetite, appetite

_WORDS = st.lists(st.sampled_from("ABC"), max_size=3)
_JOBS = st.fixed_dictionaries(
    {
        "owner_id": st.sampled_from(["me", "you"]),
        "state": st.sampled_from(["PENDING", "WAITING_FOR_REMOTE_WORKER", "PROCESSING", "FINISHED"]),
        "kind": st.sampled_from("ABC"),
        "document_type": st.sampled_from(["A", "B", "C", None]),
    }
)


def _worker(**fields: Any) -> dict[str, Any]:
    return {"kinds": [], "document_types": [], "execution": None, "serves_everyone": False} | fields


@given(_WORDS, _WORDS, _WORDS, _WORDS, _JOBS)
def test_a_job_is_taken_if_worker_and_call_both_take_it(
    kinds: list[str], types: list[str], asked_kinds: list[str], asked_types: list[str], job: dict[str, Any]
) -> None:
    """What is taken is what both lists of each sort let through, an empty one letting through all."""
    worker = _worker(kinds=kinds, document_types=types)
    chosen = appetite(worker, asked_kinds, asked_types, owner_id="me", may_serve_everyone=False)
    lists = [("kind", kinds), ("kind", asked_kinds), ("document_type", types), ("document_type", asked_types)]
    expected = (
        job["owner_id"] == "me"
        and job["state"] in ("PENDING", "WAITING_FOR_REMOTE_WORKER")
        and all(not words or job[column] in words for column, words in lists)
    )
    assert (chosen is not None and chosen.takes(job)) == expected


@pytest.mark.parametrize(
    ("execution", "states"),
    [
        (None, ("PENDING", "WAITING_FOR_REMOTE_WORKER")),
        ("LOCAL", ("PENDING",)),
        ("REMOTE", ("WAITING_FOR_REMOTE_WORKER",)),
    ],
)
def test_execution_says_which_states(execution: str | None, states: tuple[str, ...]) -> None:
    """A LOCAL worker takes what is PENDING, a REMOTE one what waits for it, others both."""
    chosen = appetite(_worker(execution=execution), [], [], owner_id="me", may_serve_everyone=False)
    assert chosen == Appetite("me", states)


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_everybody_is_served_only_if_worker_and_key_both_say_so(registered: bool, allowed: bool) -> None:
    """Either of the two without the other leaves a worker with its owner's jobs."""
    worker = _worker(serves_everyone=registered)
    chosen = appetite(worker, [], [], owner_id="me", may_serve_everyone=allowed)
    assert chosen is not None
    assert chosen.owner_id == (EVERYBODY if registered and allowed else "me")
