"""The command line in this process: fast, with its output and its exit code."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from morag_meta.cli.root import run
from morag_meta.exits import ExitCode


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: ExitCode
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value that was printed."""
        return json.loads(self.out)

    @property
    def jsons(self) -> list[Any]:
        """The JSON values that were printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Result]


@contextmanager
def restored_logging() -> Iterator[None]:
    """Put logging back as it was: a command sets it up for the stderr of its test."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("alembic").setLevel(logging.NOTSET)
        structlog.reset_defaults()


def make_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Give a function that runs one command line; ``stdin`` is what it reads, and no terminal."""

    def command(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        with restored_logging():
            code = run(list(arguments))
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return command
