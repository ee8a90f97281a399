"""A server that is wrong is found out, and what is said of it holds no secret."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from morag_meta.conformance import caller, waits
from morag_meta.conformance.cases import CASES
from morag_meta.conformance.runner import Outcome, Verdict, opened, run_all, select
from morag_meta.conformance.world import World
from morag_meta.exits import ExitCode
from moragmeta.v1 import options_pb2, users_pb2
from tests.cli.command import Command
from tests.conformance.wrong import wrong_server

KEY = "morag_" + "k" * 43
ADMIN = users_pb2.User(id="1", role=options_pb2.ROLE_ADMIN).SerializeToString()
_AIMED = select(CASES, "[fum]*/a*")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing: a wrong server never gets there."""
    monkeypatch.setattr(waits, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(caller, "STREAM_SECONDS", 2.0)


def _run(cases: Any = CASES, **answers: Any) -> list[Outcome]:
    with (
        wrong_server(**{"GetUser": ADMIN} | answers) as target,
        grpc.insecure_channel(target) as channel,
        opened(channel, KEY) as world,
    ):
        return list(run_all(world, cases))


def _refuse(text: str) -> Any:
    return lambda context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)


@pytest.mark.parametrize("caller_is_admin", [True, False])
def test_no_case_passes_on_empty_answers(caller_is_admin: bool) -> None:
    """Every single case that runs fails on a server that answers every call with an empty message."""
    outcomes = _run(GetUser=ADMIN if caller_is_admin else b"")
    ran = [outcome for outcome in outcomes if caller_is_admin or not outcome.case.needs_admin]

    assert [outcome.case.id for outcome in ran if outcome.verdict is not Verdict.FAILED] == []
    assert [outcome for outcome in ran if not (outcome.expected and outcome.seen)] == []


def test_a_refusal_without_details_is_found_out() -> None:
    """The right code does not do: a refusal without reason and domain fails its case."""
    (case,) = select(CASES, "fields/a_required_field_is_missed")
    (outcome,) = _run([case], CreateServer=_refuse("server.host: is required"))

    assert outcome.verdict is Verdict.FAILED
    assert outcome.expected == "INVALID_ARGUMENT (INVALID_FIELD)"
    assert outcome.seen == "INVALID_ARGUMENT: server.host: is required"


def test_secrets_are_not_told() -> None:
    """Of a server that shows the key it was called with, the report shows that it did, and not the key."""
    leak = _refuse(f"{KEY} is wrong, and so is eyJhbGciOi.eyJzdWIi.c2ln")
    outcomes = _run(_AIMED, every=leak, GetUser=ADMIN, RegisterUser=b"", SetUserRole=b"", CreateApiKey=b"")
    told = [outcome.expected + outcome.seen for outcome in outcomes]

    assert any("[secret] is wrong, and so is [secret]" in text for text in told)
    assert not any(KEY in text or "eyJ" in text for text in told)


def test_short_words_are_no_secrets() -> None:
    """A wrong key of a few letters, which a case sends, is not cut out of other words."""
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        world = World(channel, KEY)
        world.conceal("x")
        world.conceal("password-1")

        assert world.concealed(f"exact: {KEY}, password-1") == "exact: [secret], [secret]"


def test_what_cannot_be_removed_is_told(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and users that a server does not let go are named on stderr."""
    monkeypatch.setenv("MORAG_API_KEY", KEY)
    only = ("--only", "fields/a_nul_character")
    with wrong_server(GetUser=ADMIN, DeleteUser=_refuse("no"), DeleteServer=_refuse("no")) as target:
        result = cli("conformance", "--target", target, *only)

    assert result.code is ExitCode.NONCONFORMING
    assert "warning: could not be removed: server  (INVALID_ARGUMENT)" in result.err
    assert result.err.count("could not be removed: user") == 2


def test_a_failure_is_shown_in_the_table(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has the area, the fact, and below it what was expected and seen; the exit code is 10."""
    monkeypatch.setenv("MORAG_API_KEY", KEY)
    with wrong_server() as target:
        result = cli("conformance", "--target", target, "--only", "users/me_is_the_caller")

    assert (result.code, int(result.code)) == (ExitCode.NONCONFORMING, 10)
    for text in (
        "users",
        "The user `me` is the caller",
        "expected: ",
        "seen: ",
        "failed",
        "1 cases: 0 passed",
    ):
        assert text in result.out
