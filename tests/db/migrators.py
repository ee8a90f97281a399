"""Processes that migrate: many at once, and killed on the way.

Run as ``python -m tests.db.migrators ROLE URL FOLDER TARGET [NUMBER]``; prints JSON. A process is forked
from one that has imported everything, so that all start within milliseconds.

- ``together``: NUMBER processes migrate at once; prints what each applied, or its error.
- ``killed``: a process that is killed (SIGKILL) after its NUMBERth change; prints how many were killed.
- ``steps``: again and again, a process that is killed after its first change, until one ends; likewise.
  Each second one survives what a kill undoes (rows), as else none would ever get past it.
- ``moments``: as ``steps``, but killed at random moments, and at most NUMBER of them; then one that is not.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from morag_meta.db import migrate

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_ROUNDS = 200
_DDL = ("CREATE", "ALTER", "DROP")
_CHANGES = (*_DDL, "INSERT", "UPDATE", "DELETE")


def run(role: str, url: str, folder: pathlib.Path, target: str = "head", number: int = 1) -> Any:
    """Run this module as a process of its own, and give what it printed."""
    arguments = [role, url, str(folder), target, str(number)]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.db.migrators", *arguments],
        cwd=_ROOT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=600,
    )
    return json.loads(ended.stdout)


def _migrate(url: str, folder: pathlib.Path, target: str) -> list[str]:
    if target == "base":
        return migrate.downgrade(url, target, migrations=folder)
    return migrate.upgrade(url, target, migrations=folder)


def _forked(work: Callable[[], None]) -> int:
    """Run the work in a forked process, and give the process's id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except Exception:  # noqa: BLE001 - the process ends here, and is to say why
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def _together(url: str, folder: pathlib.Path, target: str, number: int) -> list[Any]:
    gate_out, gate_in = os.pipe()
    answers_out, answers_in = os.pipe()

    def start() -> None:
        os.close(gate_in)
        os.read(gate_out, 1)  # ends for all at once, when the parent closes its end
        try:
            answer: Any = _migrate(url, folder, target)
        except migrate.MigrationError as error:
            answer = str(error)
        os.write(answers_in, json.dumps(answer).encode() + b"\n")

    children = [_forked(start) for _ in range(number)]
    os.close(answers_in)
    time.sleep(0.2)
    os.close(gate_in)
    with os.fdopen(answers_out) as answers:
        said = [json.loads(line) for line in answers]
    for child in children:
        os.waitpid(child, 0)
    return said


def _until_one_ends(work: Callable[[int], None], rounds: int, meanwhile: Callable[[int], None]) -> int:
    for killed in range(rounds):
        child = _forked(functools.partial(work, killed))
        meanwhile(child)
        _, how = os.waitpid(child, 0)
        if os.WIFEXITED(how):
            if os.WEXITSTATUS(how) != 0:
                raise SystemExit(f"the migration failed after {killed} kills")
            return killed
    return rounds


def _die_after(number: int, changes: tuple[str, ...]) -> None:
    seen = 0

    def count(*happened: Any) -> None:
        nonlocal seen
        seen += happened[2].split(None, 1)[0].upper() in changes
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.Engine, "after_cursor_execute", count)


def _killed(url: str, folder: pathlib.Path, target: str, number: int) -> int:
    def work(_: int) -> None:
        _die_after(number, _CHANGES)
        _migrate(url, folder, target)

    return _until_one_ends(work, 1, lambda _: None)


def _killed_at_steps(url: str, folder: pathlib.Path, target: str, number: int) -> int:
    def work(killed: int) -> None:
        _die_after(number, _CHANGES if killed % 2 else _DDL)
        _migrate(url, folder, target)

    return _until_one_ends(work, _ROUNDS, lambda _: None)


def _killed_at_moments(url: str, folder: pathlib.Path, target: str, number: int) -> int:
    def meanwhile(child: int) -> None:
        time.sleep(random.uniform(0.0, 0.25))  # noqa: S311 - a moment, not a secret
        os.kill(child, signal.SIGKILL)

    def work(_: int) -> None:
        _migrate(url, folder, target)

    killed = _until_one_ends(work, number, meanwhile)
    _migrate(url, folder, target)
    return killed


def main(role: str, url: str, folder: str, target: str, number: str) -> None:
    """Play the role, and print what came of it."""
    roles: dict[str, Callable[[str, pathlib.Path, str, int], Any]] = {
        "together": _together,
        "killed": _killed,
        "steps": _killed_at_steps,
        "moments": _killed_at_moments,
    }
    print(json.dumps(roles[role](url, pathlib.Path(folder), target, int(number))))  # noqa: T201 - its answer


if __name__ == "__main__":
    main(*sys.argv[1:])
