"""A server for the cases of the contract, with what they wait for made short, and the users of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from morag_meta.conformance.case import Case
from morag_meta.conformance.runner import Outcome, opened, run_all
from tests.backends.databases import Backend
from tests.cli.command import Command, make_command
from tests.service import Service, serving


@pytest.fixture(scope="package")
def endpoint(backend: Backend) -> Iterator[Service]:
    """Give a server whose streams beat each half a second; everything else is as by default."""
    with serving(backend, stream_heartbeat=0.5) as started:
        yield started


@pytest.fixture(scope="package")
def outcomes(request: pytest.FixtureRequest, endpoint: Service) -> Iterator[dict[str, Future[Outcome]]]:
    """Run the cases that this run of pytest selected, several at once as the command does."""
    chosen: dict[str, Case] = {}
    for item in request.session.items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")  # type: ignore[attr-defined]
        if isinstance(case, Case):
            chosen[case.id] = case
    waiting: dict[str, Future[Outcome]] = {id_: Future() for id_ in chosen}
    with (
        grpc.insecure_channel(endpoint.target) as channel,
        opened(channel, endpoint.admin_key) as world,
        ThreadPoolExecutor(1) as pool,
    ):

        def run() -> None:
            for outcome in run_all(world, list(chosen.values())):
                waiting[outcome.case.id].set_result(outcome)

        running = pool.submit(run)
        yield waiting
        running.result()
    assert world.left == []


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run command lines in a folder and an environment of the test's own."""
    for name in [name for name in os.environ if name.startswith("MORAG_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return make_command(capsys, monkeypatch)
