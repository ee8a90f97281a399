"""``morag-meta key``: what lists tell of a key's bounds, and a key that is named by its first characters."""

from __future__ import annotations

import pytest

from morag_meta.auth.keys import SHOWN_CHARACTERS
from morag_meta.cli.output import print_table
from morag_meta.exits import ExitCode
from morag_meta.ids import new_id
from moragmeta.v1 import servers_pb2
from tests.cli.command import Command
from tests.service import Service, User

pytestmark = pytest.mark.usefixtures("secrets_given")


def test_lists_tell_what_bounds_a_key(cli: Command, service: Service, user: User) -> None:
    """In JSON in full, also that there is none; in the table as counts."""
    where = ("--database-url", service.url)
    server = servers_pb2.Server(name="s", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
    made = user.channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server))
    bounds = ("--server", made.id, "--address", "192.0.2.0/24", "--rate", "2.5", "--burst", "9")
    assert cli("key", "create", "bound", "--owner", user.email, *bounds, *where).code is ExitCode.OK
    bound, free = cli("key", "list", "--owner", user.email, "-o", "json", *where).jsons
    assert bound["narrowed"] is True
    assert (bound["database_ids"], bound["server_ids"]) == ([], [made.id])
    assert bound["allowed_addresses"] == ["192.0.2.0/24"]
    assert bound["rate_limit"] == {"calls_per_second": 2.5, "burst": 9}
    assert (free["narrowed"], free["rate_limit"], free["database_ids"]) == (False, None, None)
    table = "".join(cli("key", "list", "--owner", user.email, *where).out.split())
    for word in ("servers:1", "addresses:1", "rate:2.5/s"):
        assert table.count(word) == 1


def test_a_key_is_ended_by_its_first_characters(cli: Command, service: Service, user: User) -> None:
    """Who has found a key has no id of it; what is ended is that key and no other."""
    where = ("--database-url", service.url)
    one, two = (
        cli("key", "create", name, "--owner", user.email, "-o", "json", *where).json for name in ("a", "b")
    )
    done = cli("key", "revoke", one["key"][:SHOWN_CHARACTERS], *where)
    assert done.out == f"revoked a {one['id']}\n"
    listed = cli("key", "list", "--all", "--owner", user.email, "-o", "json", *where).jsons
    states = {row["id"]: row["state"] for row in listed}
    assert (states[one["id"]], states[two["id"]]) == ("REVOKED", "ACTIVE")


def test_a_replaced_key_is_still_disabled_enabled_and_revoked(
    cli: Command, service: Service, user: User
) -> None:
    """Its grace is ended, for good or for a while; its successor goes on."""
    where = ("--database-url", service.url)
    old = cli("key", "create", "a", "--owner", user.email, "-o", "json", *where).json["id"]
    new = cli("key", "rotate", old, "-o", "json", *where).json["id"]

    def state_after(verb: str) -> str:
        assert cli("key", verb, old, *where).code is ExitCode.OK
        listed = cli("key", "list", "--all", "--owner", user.email, "-o", "json", *where).jsons
        states = {row["id"]: row["state"] for row in listed}
        assert states[new] == "ACTIVE"
        return str(states[old])

    assert [state_after(verb) for verb in ("disable", "enable", "revoke")] == [
        "DISABLED",
        "ACTIVE",
        "REVOKED",
    ]


def test_what_names_no_one_key_ends_none(cli: Command, service: Service, user: User) -> None:
    """A whole key is refused and not repeated, and so is what is too short, nobody's, or that of several."""
    where = ("--database-url", service.url)
    key = cli("key", "create", "a", "--owner", user.email, "-o", "json", *where).json["key"]
    whole = cli("key", "revoke", key, *where)
    assert (whole.code, key[SHOWN_CHARACTERS:] in whole.err) == (ExitCode.USAGE, False)
    prefix = key[:SHOWN_CHARACTERS]
    assert cli("key", "revoke", prefix[:-1], *where).code is ExitCode.USAGE
    assert cli("key", "revoke", "morag_" + "-" * 6, *where).code is ExitCode.NOT_FOUND
    twin = {"name": "twin", "key_hash": new_id(), "key_prefix": prefix}
    with service.database.unit_of_work() as uow:
        uow.api_keys.add(user.id, **twin)
        uow.commit()
    several = cli("key", "revoke", prefix, *where)
    assert (several.code, several.err.count("\n")) == (ExitCode.REFUSED, 1)
    listed = cli("key", "list", "--owner", user.email, "-o", "json", *where).jsons
    assert {row["state"] for row in listed} == {"ACTIVE"}


def test_an_id_is_in_one_piece_whatever_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    """In a table of many wide columns others are folded, and the id is not."""
    id = new_id()
    print_table(("id", *"abcdefghijk"), [[id, *["word" * 20] * 11]])
    assert id in capsys.readouterr().out
