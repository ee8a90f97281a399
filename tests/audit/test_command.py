"""``morag-meta audit``: the audit as a table, and as JSON lines that another program reads."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from morag_meta.cli import root
from morag_meta.exits import ExitCode
from moragmeta.v1 import servers_pb2
from tests.cli.command import restored_logging
from tests.service import Service, User


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture
def servers(service: Service, user: User, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make three servers, and let the command call as the ADMIN."""
    monkeypatch.setenv("MORAG_API_KEY", service.admin_key)
    monkeypatch.setenv("MORAG_TARGET", service.target)
    kind = servers_pb2.SERVER_KIND_QDRANT
    requests = [
        servers_pb2.CreateServerRequest(server=servers_pb2.Server(name=name, kind=kind, host="h", port=1))
        for name in "abc"
    ]
    return [user.channel.servers.CreateServer(request).id for request in requests]


def test_export_prints_one_object_a_line_oldest_first(
    servers: list[str], user: User, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event is one line of JSON, in the order in which it happened, over as many pages as it takes."""
    monkeypatch.setattr("morag_meta.cli.audit._PAGE", 2)
    assert root.run(["audit", "export", "--user", user.id, "--event", "server.create"]) is ExitCode.OK
    printed = capsys.readouterr().out.splitlines()  # the server in this process logs to the same place
    lines = [json.loads(line) for line in printed if line.startswith("{")]
    assert [line["target_id"] for line in lines] == servers
    assert {line["outcome"] for line in lines} == {"OK"}


def test_list_shows_the_newest_first_and_no_more_than_asked_for(
    servers: list[str], user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has the newest two of three, with who did it by which key."""
    assert root.run(["audit", "list", "--user", user.id, "-n", "2"]) is ExitCode.OK
    shown = capsys.readouterr().out
    assert [id in shown for id in servers] == [False, True, True]
    assert shown.index(servers[2]) < shown.index(servers[1])
    assert user.key_id in shown
