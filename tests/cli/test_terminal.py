"""What commands do at a terminal: ask, hide what is typed, and show live bars."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from morag_meta.exits import ExitCode
from tests.server.processes import environment, run


class Terminal:
    """A command at a terminal of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        """Start the command."""
        self._controller, terminal = pty.openpty()
        self.shown = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "morag_meta", *words],
            cwd=folder,
            env=environment() | {"TERM": "xterm", "COLUMNS": "200"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)

    def wait_for(self, text: str) -> None:
        """Read until the terminal shows a text."""
        limit = time.monotonic() + 30
        while text not in self.shown:
            assert time.monotonic() < limit, self.shown
            self.shown += os.read(self._controller, 4096).decode()

    def wait_until_unseen(self) -> None:
        """Wait until nothing that is typed is shown, which is just after the prompt."""
        limit = time.monotonic() + 30
        while termios.tcgetattr(self._controller)[3] & termios.ECHO:
            assert time.monotonic() < limit
            time.sleep(0.01)

    def type_(self, text: str) -> None:
        """Type a line."""
        os.write(self._controller, f"{text}\n".encode())

    def end(self) -> int:
        """Read to the end and give the exit code."""
        try:
            while part := os.read(self._controller, 4096):
                self.shown += part.decode()
        except OSError:  # how a terminal says that nobody is there any more
            pass
        os.close(self._controller)
        return self._process.wait(30)


def test_password_is_asked_for_twice_and_not_shown(tmp_path: Path) -> None:
    """At a terminal the password is typed twice, unseen."""
    run("db", "upgrade", folder=tmp_path)
    terminal = Terminal(tmp_path, "user", "create", "ada@example.org")
    for prompt in ("Password", "Repeat"):
        terminal.wait_for(prompt)
        terminal.wait_until_unseen()
        terminal.type_("correct horse")
    assert terminal.end() == ExitCode.OK, terminal.shown
    assert "created USER ada@example.org" in terminal.shown
    assert "correct horse" not in terminal.shown


@pytest.mark.parametrize(("answer", "code", "users"), [("n", ExitCode.INTERRUPTED, 1), ("y", ExitCode.OK, 0)])
def test_reset_asks_at_a_terminal(tmp_path: Path, answer: str, code: ExitCode, users: int) -> None:
    """Only a yes drops the tables."""
    run("db", "init", "--create-admin", "--admin-email", "a@b.dev", folder=tmp_path)
    terminal = Terminal(tmp_path, "db", "reset")
    terminal.wait_for("Drop every table of sqlite:///./morag.db?")
    terminal.type_(answer)
    assert terminal.end() == code, terminal.shown
    assert f'"users": {users}' in run("db", "check", "-o", "json", folder=tmp_path).stdout
