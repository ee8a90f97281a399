"""How a command ends as a process: exit code, one line, never a traceback."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

from morag_meta.exits import ExitCode
from tests.cli.command import Command
from tests.server.processes import environment, run


def test_console_script_and_module_are_one(tmp_path: Path) -> None:
    """``morag-meta`` and ``python -m morag_meta`` are the same command."""
    script = Path(sysconfig.get_path("scripts")) / "morag-meta"
    printed = subprocess.run(
        [script, "--version"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert printed == f"morag-meta {version('morag-meta')}\n"
    assert run("--version", folder=tmp_path).stdout == f"morag-meta {version('morag-meta')}\n"


@pytest.mark.parametrize(
    "words", [["nosuch"], ["db", "nosuch"], ["db", "check", "--nosuch"], ["health", "--timeout", "soon"]]
)
def test_wrong_command_line_is_told(cli: Command, words: list[str]) -> None:
    """What is no command or option is one line, and an exit code of its own."""
    result = cli(*words)
    assert result.code is ExitCode.USAGE
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["db"], ["user"], ["key"], ["jobs"]])
def test_no_command_shows_the_commands(cli: Command, words: list[str]) -> None:
    """A group without a command lists its commands."""
    result = cli(*words)
    assert "Commands" in result.out + result.err


@pytest.mark.parametrize(
    "words",
    [
        ["serve"],
        ["health"],
        *(["db", each] for each in ("init", "upgrade", "downgrade", "revision", "history", "status")),
        *(["db", each] for each in ("check", "verify", "reset", "seed")),
        ["user", "create"],
        *(["key", each] for each in ("create", "list", "revoke")),
        *(["jobs", each] for each in ("list", "watch", "cancel", "retry")),
    ],
)
def test_every_command_takes_a_database_url(cli: Command, words: list[str]) -> None:
    """The option stands in the help of every command."""
    result = cli(*words, "--help")
    assert result.code is ExitCode.OK
    assert "--database-url" in result.out


def test_misspelled_variable_is_warned_of(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is no setting is told on stderr, and the command goes on."""
    monkeypatch.setenv("MORAG_DATABASE_ULR", "x")
    result = cli("db", "status")
    assert result.code is ExitCode.OK
    assert result.err == "warning: MORAG_DATABASE_ULR is not a setting; did you mean MORAG_DATABASE_URL?\n"


def test_reader_that_leaves_is_told_nothing(tmp_path: Path) -> None:
    """When the reader of the output goes away, the command ends without a word, as other tools do."""
    process = subprocess.Popen(
        [sys.executable, "-m", "morag_meta", "db", "upgrade", "--sql"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(30) == ExitCode.FAILURE


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_unforeseen_failure_is_one_line_unless_debugging(tmp_path: Path, level: str) -> None:
    """What nobody thought of, here a closed stdout, is one line; its traceback only at DEBUG."""
    command = f"exec '{sys.executable}' -m morag_meta db status >&-"
    variables = environment(LOG_LEVEL=level)
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == ExitCode.FAILURE
    assert "error: unforeseen failure (AttributeError)" in done.stderr.splitlines()[-1]
    assert ("Traceback" in done.stderr) is (level == "DEBUG")
