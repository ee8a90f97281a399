"""Sealing a server's secrets: which values are sealed, and that each opens in its own place only."""

from __future__ import annotations

import os

import pytest

from morag_meta.auth.credentials import CredentialRing, UnreadableCredentialError
from morag_meta.servers.secrets import reveal, seal

RING = CredentialRing({"k1": os.urandom(32)}, "k1")


def test_secrets_are_sealed_and_the_rest_is_not() -> None:
    """Only the two secrets change, each to a column of its own."""
    columns = seal(RING, "id-1", {"name": "n", "password": "p4ss", "api_key": None})
    assert columns["name"] == "n"
    assert columns["api_key_sealed"] is None
    assert columns.keys() == {"name", "password_sealed", "api_key_sealed"}
    assert reveal(RING, {"id": "id-1"} | columns) == {"password": "p4ss", "api_key": None}


def test_a_secret_that_is_not_named_is_not_touched() -> None:
    """A change of the name alone writes no secret."""
    assert seal(RING, "id-1", {"name": "n"}) == {"name": "n"}


@pytest.mark.parametrize("moved", ["server", "field"])
def test_a_sealed_secret_does_not_open_elsewhere(moved: str) -> None:
    """Copied to another server, or from one field to the other, it is of no use."""
    columns = seal(RING, "id-1", {"password": "p4ss", "api_key": None})
    row = (
        {"id": "id-2", **columns}
        if moved == "server"
        else {"id": "id-1", "api_key_sealed": columns["password_sealed"], "password_sealed": None}
    )
    with pytest.raises(UnreadableCredentialError):
        reveal(RING, row)
