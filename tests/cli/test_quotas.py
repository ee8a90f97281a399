"""``morag-meta quotas``: limits set and shown straight in the database."""

from __future__ import annotations

import pytest

from morag_meta.audit.store import Filter
from morag_meta.exits import ExitCode
from tests.cli.command import Command
from tests.quotas.ways import a_server
from tests.refusals import refused
from tests.service import Service, User

pytestmark = pytest.mark.usefixtures("secrets_given")


def test_limits_are_set_shown_and_lifted(cli: Command, service: Service, user: User) -> None:
    """What the command sets a running server holds, and 'none' lifts it."""
    given = ("--database-url", service.url, "-o", "json")
    result = cli("quotas", "set", user.email, "servers=1", "storage_bytes=4096", *given)
    assert result.code is ExitCode.OK, result.err
    assert result.json["servers"] == {"used": 0, "limit": 1, "default": False}
    a_server(user)
    with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
        a_server(user)
    shown = cli("quotas", "get", user.email, *given).json
    assert shown["servers"] == {"used": 1, "limit": 1, "default": False}
    assert shown["storage_bytes"] == {"used": 0, "limit": 4096, "default": False}
    assert shown["databases"] == {"used": 0, "limit": None, "default": False}
    assert cli("quotas", "set", user.email, "servers=none", *given).json["servers"]["limit"] is None
    a_server(user)


def test_setting_limits_is_in_the_audit(cli: Command, service: Service, user: User) -> None:
    """What an operator sets is a row with the limits, and what is refused is none."""
    where = ("--database-url", service.url)
    assert cli("quotas", "set", user.email, "servers=7", "documents=none", *where).code is ExitCode.OK
    assert cli("quotas", "set", user.email, "chairs=1", *where).code is ExitCode.USAGE
    with service.database.unit_of_work() as uow:
        rows = uow.audit.page(Filter(event="user.set_quotas"), None, 100)
    rows = [row for row in rows if row["target_user_id"] == user.id]
    assert [(row["method"], row["actor"]) for row in rows] == [("morag-meta quotas set", "OPERATOR")]
    assert rows[0]["fields"] == {"quotas.servers": 7, "quotas.documents": None}


def test_the_table_says_by_which_defaults_it_judges(
    cli: Command, service: Service, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator's shell may lack the server's defaults: below the table stands which ones were given."""
    where = ("--database-url", service.url)
    assert cli("quotas", "get", user.email, *where).out.endswith("(MORAG_DEFAULT_QUOTA_...): none\n")
    monkeypatch.setenv("MORAG_DEFAULT_QUOTA_SERVERS", "5")
    shown = cli("quotas", "get", user.email, *where).out
    assert shown.endswith("(MORAG_DEFAULT_QUOTA_...): servers=5\n")
    assert "default" in next(line for line in shown.splitlines() if "servers" in line)


@pytest.mark.parametrize("limit", ["servers", "servers=-1", "servers=many", "chairs=1"])
def test_what_is_no_limit_is_refused(cli: Command, service: Service, user: User, limit: str) -> None:
    """A resource that there is not, and what is no number, are refused in one line."""
    result = cli("quotas", "set", user.email, "--database-url", service.url, "--", limit)
    assert result.code is ExitCode.USAGE
    assert result.err.count("\n") == 1
