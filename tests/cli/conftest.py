"""The command line, run in this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.command import Command, make_command
from tests.service import CREDENTIAL_KEYS, SECRET_KEY


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run command lines in a folder and an environment of the test's own."""
    for name in [name for name in os.environ if name.startswith("MORAG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MORAG_BCRYPT_COST", "10")
    monkeypatch.chdir(tmp_path)
    return make_command(capsys, monkeypatch)


@pytest.fixture
def secrets_given(cli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the secrets that a database other than SQLite needs; the run's servers have them too."""
    monkeypatch.setenv("MORAG_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("MORAG_CREDENTIAL_KEYS", CREDENTIAL_KEYS)
