"""Migrated databases, and folders of revisions: the service's own, and the same with two more."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterator

import pytest

from morag_meta.db import migrate
from morag_meta.db.database import Database
from tests.backends.databases import Backend

OWN = pathlib.Path(__file__).resolve().parents[2] / "migrations"
LATER = pathlib.Path(__file__).resolve().parent / "later_revisions"


@pytest.fixture(scope="session")
def own_revisions() -> pathlib.Path:
    """Give the folder of the service's own revisions."""
    return OWN


@pytest.fixture(scope="session")
def later_revisions(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Give a folder with the service's own revisions and two later ones, 9001 and 9002."""
    folder = tmp_path_factory.mktemp("revisions") / "migrations"
    shutil.copytree(OWN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    newest = max(path.name[:4] for path in (folder / "versions").glob("[0-9]*.py"))
    for revision in LATER.glob("[0-9]*.py"):
        text = revision.read_text().replace('"NEWEST"', f'"{newest}"')
        (folder / "versions" / revision.name).write_text(text)
    return folder


@pytest.fixture(params=["own", "later"])
def any_revisions(
    request: pytest.FixtureRequest, own_revisions: pathlib.Path, later_revisions: pathlib.Path
) -> pathlib.Path:
    """Run the test over the service's own revisions, and over those with the later ones."""
    return own_revisions if request.param == "own" else later_revisions


@pytest.fixture(scope="module")
def migrated_url(backend: Backend) -> Iterator[str]:
    """Give the tests of a module a migrated database."""
    url = backend.new_url()
    migrate.upgrade(url)
    yield url
    backend.drop(url)


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """Open that database as a service does."""
    opened = Database.open(migrated_url)
    yield opened
    opened.close()
