"""Who may import whom, and the few words that only one file may say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_SOURCES = sorted((_ROOT / "morag_meta").rglob("*.py"))


def test_layers_hold() -> None:
    """The import contracts of pyproject.toml are kept."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("word", "homes"),
    [
        (r"\bStatusCode\b", {"morag_meta/rpc/status.py"}),
        (r"\bos\.(environ|getenv)\b", {"morag_meta/config/variables.py"}),
    ],
)
def test_word_stays_in_its_home(word: str, homes: set[str]) -> None:
    """Status codes are chosen, and the environment is read, in one file each."""
    said = {
        str(path.relative_to(_ROOT))
        for path in _SOURCES
        if any(re.search(word, line) for line in path.read_text().splitlines())
    }
    assert said == homes


def test_every_module_can_be_imported_first() -> None:
    """Each module imports in a process that has imported none of ours, and writes nothing while it does.

    A circle of imports shows only to the one who enters it from the wrong side.
    """
    modules = [
        ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in _SOURCES
        if path.name != "__main__.py"
    ]
    # Third parties are imported once; each of our modules then in a fork of its own.
    script = """
import importlib, os, sys
import alembic.command, cryptography.fernet, google.protobuf.struct_pb2, grpc.aio, pydantic_settings
import rich.console, sqlalchemy, structlog, typer
failed = []
for name in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        try:
            importlib.import_module(name)
            os._exit(0)
        except BaseException as error:
            print(f"{name}: {error!r}", flush=True)
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        failed.append(name)
sys.exit(bool(failed))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *modules], capture_output=True, text=True, check=False, cwd=_ROOT
    )
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr
