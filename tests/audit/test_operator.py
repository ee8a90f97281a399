"""What an operator does past the service stands in the audit as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from morag_meta.audit.store import Filter
from morag_meta.cli import root
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.exits import ExitCode
from tests.cli.command import restored_logging
from tests.service import SECRET_KEY


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_logging():
        yield


def test_commands_leave_rows_of_an_operator(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user and a key made on the command line are two rows, of nobody that the service would know."""
    monkeypatch.setenv("MORAG_SECRET_KEY", SECRET_KEY)
    migrate.upgrade(database_url)
    where = ["--database-url", database_url]
    user = ["user", "create", "ada@example.org", "--no-password", *where]
    assert root.run(user) is ExitCode.OK
    assert root.run(["key", "create", "first", "--owner", "ada@example.org", *where]) is ExitCode.OK
    key = capsys.readouterr().out.rpartition("morag_")[2].strip()
    database = Database.open(database_url)
    with database.unit_of_work() as uow:
        made, created = uow.audit.page(Filter(), None, 10)
    database.close()
    assert (created["event"], created["method"]) == ("user.create", "morag-meta user create")
    assert (made["event"], made["actor"], made["subject"]) == ("api_key.create", "OPERATOR", "")
    assert made["owner_user_id"] == created["target_user_id"]
    assert key[:20] not in str((made, created))
