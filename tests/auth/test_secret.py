"""The one secret: what is accepted, what is derived from it, and its file."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.secret import PURPOSES, RootSecret
from morag_meta.auth.secret_files import read_root
from morag_meta.config.error import ConfigurationError

_GOOD = "kT3vXw9qLm2rB7nZcY5hJd8sFg4pQa6uEo1iRxWv0NzM"


def test_each_purpose_has_a_key_of_its_own() -> None:
    """Keys of two purposes differ, and none of them is the secret itself."""
    secret = RootSecret.from_text(_GOOD)
    keys = {secret.subkey(purpose) for purpose in PURPOSES}
    assert len(keys) == len(PURPOSES)
    assert all(len(key) == 32 and key not in _GOOD.encode() for key in keys)


def test_derivation_is_fixed() -> None:
    """The derivation is what stored hashes rest on, so a known secret gives known bytes for ever."""
    secret = RootSecret.from_text(_GOOD)
    assert (
        secret.subkey("api-key").hex() == "1ac6de49c6154628fd0def1c61bd9f0bb3df0af68334b688ea9e326b75ba6ad8"
    )
    assert RootSecret.from_text(_GOOD + "\n").subkey("api-key") == secret.subkey("api-key")
    assert len(secret.subkey("jwt", 64)) == 64


def test_unknown_purpose_is_refused() -> None:
    """A misspelled purpose does not silently get a key of its own."""
    with pytest.raises(ValueError, match="purpose"):
        RootSecret.from_text(_GOOD).subkey("api_key")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "brief",
        "x" * 64,
        "abcabcabc" * 5,
        "0123456789abcdef" * 2,
        "0123456789ABCDEF0123456789ABCDEF",
        "changeme-changeme-changeme-changeme",
        "your-secret-key-change-in-production",
        "your-super-secret-jwt-key-min-32-chars-please",
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "a-good-password-that-somebody-typed-here",
        "qK7#vT2!zR9@mW4$" * 3,
        "replace-this-placeholder-before-you-serve",
    ],
)
def test_short_repeated_and_example_values_are_refused(text: str) -> None:
    """What is too short, repeats itself or stands in examples is refused in one line without the value."""
    with pytest.raises(ConfigurationError) as caught:
        RootSecret.from_text(text)
    assert "MORAG_SECRET_KEY" in str(caught.value)
    assert "openssl rand" in str(caught.value)
    assert not text or text not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.integers(32, 96))
def test_random_secrets_are_accepted(length: int) -> None:
    """Whatever a random generator makes of 32 bytes or more is accepted."""
    RootSecret(secrets.token_bytes(length))
    RootSecret.from_text(secrets.token_urlsafe(length))


def test_secret_shows_nothing() -> None:
    """Neither its repr nor its text betrays the secret."""
    secret = RootSecret.from_text(_GOOD)
    assert _GOOD not in repr(secret)
    assert _GOOD not in str(secret)


def load_or_create(path: Path) -> RootSecret:
    """Read or make a file, and give the secret in it."""
    (secret,) = read_root(path, create=True).secrets
    return secret


def test_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """The first start makes the file with 0600 whatever the umask, and later ones read the same secret."""
    path = tmp_path / "morag.db.secret-key"
    before = os.umask(0)
    try:
        first = load_or_create(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create(path).subkey("jwt") == first.subkey("jwt")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_file_could_stand_in_the_environment(tmp_path: Path) -> None:
    """The file holds what MORAG_SECRET_KEY would, so an installation can move to another database."""
    path = tmp_path / "key"
    made = load_or_create(path)
    assert RootSecret.from_text(path.read_text()).subkey("api-key") == made.subkey("api-key")


def test_eight_starters_agree_on_one_secret(tmp_path: Path) -> None:
    """Of eight processes that start at once one makes the secret, and all use it."""
    path = tmp_path / "key"
    program = (
        "import sys, pathlib; from morag_meta.auth.secret_files import read_root; "
        "print(read_root(pathlib.Path(sys.argv[1]), create=True).secrets[0].subkey('api-key').hex())"
    )
    starters = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) for _ in range(8)
    ]
    keys = {starter.communicate()[0] for starter in starters}
    assert [starter.returncode for starter in starters] == [0] * 8
    assert keys == {load_or_create(path).subkey("api-key").hex().encode() + b"\n"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A secret that others may have read is not used; the message says how to close the file."""
    path = tmp_path / "key"
    load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_or_create(path)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe\xfd"])
def test_damaged_file_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    """A damaged file stops the start instead of making another secret, which would void every key."""
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=str(path)):
        load_or_create(path)
    assert path.read_bytes() == content


def test_missing_folder_is_told(tmp_path: Path) -> None:
    """A folder that is not there is one clear line, and nothing is made."""
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        load_or_create(tmp_path / "missing" / "key")
    assert list(tmp_path.iterdir()) == []
