"""What is said of a walk that diverged: its shortest form, kept in a file, and how to take it again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from morag_meta.db import migrate
from tests.backends.databases import Backend
from tests.model import steps as files
from tests.model.steps import Step
from tests.model.walk import Walk, follow, shortest
from tests.service import Service, serving

SETTINGS: dict[str, Any] = {"login_failures": 0, "login_account_failures": 0}
"""Of the service of a walk: a wrong password is no try at anything."""
_SHOWN = 60


@contextmanager
def walked(backend: Backend) -> Iterator[Service]:
    """Serve an empty database for a walk."""
    with serving(backend, **SETTINGS) as service:
        yield service


class Prepared:
    """Databases in files that are migrated already, for walks of which there are many."""

    name = "sqlite"

    def __init__(self, files: Backend) -> None:
        """Migrate one of them."""
        self._files = files
        self._migrated = files.new_url()
        migrate.upgrade(self._migrated)

    def new_url(self) -> str:
        """Give a copy of the migrated one."""
        url = self._files.new_url()
        shutil.copy(self._migrated.removeprefix("sqlite:///"), url.removeprefix("sqlite:///"))
        return url

    def new_empty_url(self) -> str:
        """Give a file that does not exist yet."""
        return self._files.new_empty_url()

    def drop(self, url: str) -> None:
        """Remove a copy."""
        self._files.drop(url)


def made_shorter(backend: Backend, walk: Walk, most: int = 100) -> Walk:
    """Give the shortest walk that ends as one did."""

    def again(steps: Sequence[Step]) -> Walk:
        with walked(backend) as service:
            return follow(service, steps)

    return shortest(walk, again, most)


def told(backend: Backend, seed: int, walk: Walk, folder: Path | None = None) -> str:
    """Say how a walk diverged, and keep it."""
    short = made_shorter(backend, walk)
    path = (folder or Path(tempfile.gettempdir())) / f"model-{backend.name}-{seed}.jsonl"
    files.write(short.steps, path)
    lines = "\n".join(f"  {step}" for step in short.steps[-_SHOWN:])
    return (
        f"seed {seed}, step {len(walk.steps)}: {walk.divergence}\n"
        f"the shortest walk, {len(short.steps)} steps, is {path}; take it again with\n"
        f"  python -m tests.model --database {backend.name} --replay {path}\n{lines}\n{short.divergence}"
    )
