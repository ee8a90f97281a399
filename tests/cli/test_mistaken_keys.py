"""API keys that were typed where something else belongs."""

from __future__ import annotations

import pytest

from morag_meta.auth.keys import SHOWN_CHARACTERS
from morag_meta.exits import ExitCode
from tests.cli.command import Command
from tests.service import Service, User

pytestmark = pytest.mark.usefixtures("secrets_given")


@pytest.mark.parametrize(
    "words",
    [
        ["grant", "list", "--database", "KEY"],
        ["grant", "list", "--user", "KEY"],
        ["grant", "give", "KEY", "USER"],
        ["grant", "revoke", "KEY", "USER"],
        ["key", "create", "name", "--owner", "KEY"],
        ["key", "create", "name", "--owner", "USER", "--scope", "KEY"],
        ["key", "create", "name", "--owner", "USER", "--database", "KEY"],
        ["key", "revoke", "KEY"],
        ["user", "end-sessions", "KEY"],
        ["quotas", "set", "KEY"],
        ["grant", "KEY"],
    ],
    ids=" ".join,
)
def test_a_key_where_something_else_belongs_is_not_repeated(
    cli: Command, service: Service, user: User, words: list[str]
) -> None:
    """No error shows more of a key that was typed by mistake, or mistyped, than a list of keys does."""
    for typed in (user.key, user.key[:-1], f"{user.key}x"):
        named = [{"KEY": typed, "USER": user.email}.get(word, word) for word in words]
        result = cli(*named, *(["--database-url", service.url] if len(words) > 2 else []))
        assert result.code is not ExitCode.OK
        assert typed[SHOWN_CHARACTERS:] not in result.err + result.out
        assert result.err.startswith("error: ")
