"""``morag-meta conformance``: which cases run, what is printed, and the exit codes."""

from __future__ import annotations

import grpc
import pytest

from morag_meta.conformance.cases import CASES
from morag_meta.conformance.runner import Verdict, opened, run_all, select
from morag_meta.exits import ExitCode
from moragmeta.v1 import api_keys_pb2, databases_pb2, documents_pb2, jobs_pb2, servers_pb2
from tests.backends.databases import Backend
from tests.cli.command import Command
from tests.service import Service, serving


@pytest.fixture
def reached(cli: Command, endpoint: Service, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Give a command line whose environment names the server and an ADMIN's key."""
    monkeypatch.setenv("MORAG_TARGET", endpoint.target)
    monkeypatch.setenv("MORAG_API_KEY", endpoint.admin_key)
    return cli


def test_all_passed_is_zero(reached: Command) -> None:
    """Where every chosen case passes the command ends with 0 and says how many there were."""
    result = reached("conformance", "--only", "etags")
    count = len(select(CASES, "etags"))

    assert (result.code, result.err) == (ExitCode.OK, "")
    assert "An update with an etag that is not the present one is ABORTED" in result.out
    assert f"{count} cases: {count} passed, 0 failed" in result.out


def test_json_has_a_line_for_each_case(reached: Command) -> None:
    """As JSON each case is one line with its fact and its result."""
    result = reached("conformance", "--only", "etags/*", "--output", "json")

    assert [line["case"] for line in result.jsons] == [case.name for case in select(CASES, "etags/*")]
    assert {line["result"] for line in result.jsons} == {"passed"}
    assert {"area", "case", "fact", "result", "expected", "seen"} == set(result.jsons[0])


def test_cases_that_need_an_admin_are_shown_as_not_run(
    reached: Command, endpoint: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a USER's key the cases that need two users are told as not run, and the exit code is 11."""
    monkeypatch.setenv("MORAG_API_KEY", endpoint.new_user().key)
    result = reached("conformance", "--only", "access/a*server*")

    assert (result.code, int(result.code)) == (ExitCode.INCOMPLETE, 11)
    assert "not run: needs an ADMIN key" in result.out
    assert "1 cases: 0 passed, 0 failed, 1 not run" in result.out


def test_a_users_run_leaves_nothing_behind(endpoint: Service) -> None:
    """With a USER's key every other case passes, and what the cases made is gone or marked as deleted."""
    user = endpoint.new_user()
    with grpc.insecure_channel(endpoint.target) as channel, opened(channel, user.key) as world:
        outcomes = list(run_all(world, CASES))
    mine = user.channel

    assert [outcome for outcome in outcomes if outcome.verdict is Verdict.FAILED] == []
    assert {outcome.case.needs_admin for outcome in outcomes if outcome.verdict is Verdict.NOT_RUN} == {True}
    assert world.left == []
    assert not mine.servers.ListServers(servers_pb2.ListServersRequest()).servers
    assert not mine.databases.ListDatabases(databases_pb2.ListDatabasesRequest()).databases
    assert not mine.documents.ListDocuments(documents_pb2.ListDocumentsRequest()).documents
    assert not mine.jobs.ListJobs(jobs_pb2.ListJobsRequest()).jobs
    keys = mine.api_keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest(show_revoked=True)).api_keys
    assert [key.id for key in keys] == [user.key_id]


def test_without_registration_an_admin_has_no_second_user(backend: Backend) -> None:
    """Where nobody can register, an ADMIN's run says so, and runs the other cases."""
    chosen = [*select(CASES, "etags/an_old_etag_is_refused"), *select(CASES, "access/lists_show*")]
    with (
        serving(backend, enable_user_registration=False) as closed,
        grpc.insecure_channel(closed.target) as channel,
        opened(channel, closed.admin_key) as world,
    ):
        outcomes = list(run_all(world, chosen))

    assert [outcome.verdict for outcome in outcomes] == [Verdict.PASSED, Verdict.NOT_RUN]
    assert outcomes[1].seen == "needs registration to be enabled"


def test_what_keeps_a_run_from_beginning_has_the_usual_codes(
    reached: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server, no such case, a wrong key and no key end the command as they end every other."""
    assert reached("conformance", "--target", "127.0.0.1:1").code is ExitCode.UNREACHABLE
    assert reached("conformance", "--only", "nothing_of_that_name").code is ExitCode.USAGE
    monkeypatch.setenv("MORAG_API_KEY", "morag_" + "x" * 43)
    assert reached("conformance").code is ExitCode.REFUSED
    monkeypatch.delenv("MORAG_API_KEY")
    assert reached("conformance").code is ExitCode.CONFIGURATION


def test_cases_are_chosen_by_a_part_or_a_pattern() -> None:
    """A word chooses the cases that have it in area or name, a pattern those that it matches whole."""
    assert {case.area for case in select(CASES, "etags")} == {"etags"}
    assert [case.name for case in select(CASES, "etags/the_*")] == ["the_present_etag_is_accepted"]
    assert select(CASES, "the_present_*") == []
    assert select(CASES, "") == list(CASES)


def test_every_case_states_a_fact_and_has_a_name_of_its_own() -> None:
    """There are a hundred cases at least, each with a sentence of its own and an id of its own."""
    assert len(CASES) >= 100
    assert len({case.id for case in CASES}) == len(CASES)
    assert [case.id for case in CASES if not case.fact.endswith(".") or "  " in case.fact] == []
