"""Log lines: their form, and that nothing secret is on them."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from morag_meta import logs
from tests.cli.command import restored_logging

KEY = "morag_" + "aB3-_xY9" * 5 + "abc"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_logging():
        yield


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_bound_values_are_on_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A logger bound to a call carries request id and principal on each of its lines, as JSON."""
    logs.configure("INFO", "json")
    log = structlog.get_logger().bind(request_id="r-1", principal="u-1")
    log.info("one")
    log.warning("two", seconds=1.5)
    first, second = _lines(capsys)
    assert first.items() >= {"event": "one", "level": "info", "request_id": "r-1", "principal": "u-1"}.items()
    assert second.items() >= {"event": "two", "seconds": 1.5, "request_id": "r-1"}.items()
    assert first["timestamp"].endswith("Z")


def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The level holds for this service and for libraries."""
    logs.configure("WARNING", "json")
    structlog.get_logger().info("no")
    logging.getLogger("some.library").info("no")
    logging.getLogger("some.library").error("yes")
    assert [line["event"] for line in _lines(capsys)] == ["yes"]


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "new_password",
        "secret",
        "client_secret",
        "api_key",
        "apikey",
        "authorization",
        "refresh_token",
        "credential_keys",
        "Cookie",
        "private_key",
        "passphrase",
    ],
)
def test_secret_looking_keys_are_blotted_out(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """A value whose name says that it is secret is not logged, however deep it lies."""
    logs.configure("INFO", "json")
    structlog.get_logger().info("x", **{name: "hunter2"}, nested={"list": [{name: "hunter2"}]})
    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert text.count("[redacted]") == 2


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY} used", KEY),
        (f"token {JWT}.", JWT),
        ("Authorization: Bearer abcdefghij", "abcdefghij"),
        ("postgresql://morag:hun@ter2@host/db", "ter2"),
        ("login with password=hunter2 failed", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ("user jane.doe+x@example.org logged in", "jane.doe"),
        ("user admin@localhost logged in", "admin"),
        ("bob@corp: unknown", "bob"),
    ],
)
@pytest.mark.parametrize("library", [False, True])
def test_secret_looking_text_is_blotted_out(
    capsys: pytest.CaptureFixture[str], text: str, secret: str, library: bool
) -> None:
    """Keys, tokens, passwords and emails within any text are not logged, by us or by a library."""
    logs.configure("INFO", "json")
    if library:
        logging.getLogger("some.library").error("it says %s", text)
    else:
        structlog.get_logger().error("it says", text=text, listed=[text])
    assert secret not in capsys.readouterr().err


def test_harmless_values_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """Ids, counts and plain words are logged as they are."""
    logs.configure("INFO", "json")
    given = {"key_id": "k-1", "count": 3, "ready": True, "method": "UserService.GetUser", "nothing": None}
    structlog.get_logger().info("call", **given)
    assert _lines(capsys)[0].items() >= given.items()


def test_traceback_holds_no_secret_and_no_locals(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception is logged with its traceback, without local variables and without secrets in its text."""
    logs.configure("INFO", "json")
    hidden = "local-value"
    try:
        int(f"cannot use {KEY}")
    except ValueError:
        structlog.get_logger().exception("failed")
    line = _lines(capsys)[0]
    assert "test_traceback_holds" in line["exception"]
    assert KEY not in line["exception"]
    assert hidden not in line["exception"]


def test_secret_type_never_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """A SecretStr under a harmless name shows asterisks."""
    logs.configure("INFO", "json")
    structlog.get_logger().info("x", value=SecretStr("hunter2"))
    assert _lines(capsys)[0]["value"] == "**********"


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The console form is no JSON, and blots out just the same."""
    logs.configure("INFO", "console")
    structlog.get_logger().info("hello", password="hunter2", count=2)
    line = capsys.readouterr().err
    assert "hello" in line
    assert "count=2" in line
    assert "hunter2" not in line
    assert not line.startswith("{")


def test_a_pipe_gets_json_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a format, what is no terminal gets JSON."""
    logs.configure("INFO")
    structlog.get_logger().info("hello")
    assert _lines(capsys)[0]["event"] == "hello"


def test_python_warnings_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning of a library is a line like any other."""
    logs.configure("INFO", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
    assert "old way" in _lines(capsys)[0]["event"]
