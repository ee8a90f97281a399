"""Writing a revision, and where revisions are found: in a checkout, and in an installed package."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import sqlalchemy as sa

from morag_meta.db import migrate
from morag_meta.db.schema import metadata
from tests.db.rows import engine_of


def test_a_new_revision_starts_from_the_difference(
    empty_url: str, own_revisions: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A revision written against a database holds how it differs, takes the next number, and can run."""
    folder = tmp_path / "migrations"
    shutil.copytree(own_revisions, folder)
    migrate.upgrade(empty_url)
    with engine_of(empty_url).begin() as connection:
        connection.execute(sa.schema.DropIndex(_index("jobs", "ix_jobs__create_time_id")))
    path = migrate.revision("Put back an index", empty_url, migrations=folder)
    number = f"{int(migrate.head()) + 1:04d}"
    assert path.name == f"{number}_put_back_an_index.py"
    assert "ix_jobs__create_time_id" in path.read_text()
    assert migrate.upgrade(empty_url, migrations=folder) == [number]
    assert migrate.check_differences(empty_url) == []


def test_a_new_revision_without_a_database_is_empty(
    own_revisions: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A revision written without a database holds no steps, and follows the newest."""
    folder = tmp_path / "migrations"
    shutil.copytree(own_revisions, folder)
    text = migrate.revision("Think of something", migrations=folder).read_text()
    assert f'down_revision = "{migrate.head()}"'.replace('"', "'") in text
    assert text.startswith('"""Think of something.')
    assert text.count("    pass\n") == 2


_INSTALLED = """
import sys
sys.path.insert(0, sys.argv[1])
import morag_meta
from morag_meta.db import migrate
assert morag_meta.__file__.startswith(sys.argv[1]), morag_meta.__file__
print(migrate.upgrade(sys.argv[2]), migrate.check_differences(sys.argv[2]))
try:
    migrate.revision("Something")
except migrate.MigrationError as error:
    print(error)
"""


def test_an_installed_package_carries_its_revisions(
    tmp_path: pathlib.Path, own_revisions: pathlib.Path
) -> None:
    """With the revisions within the package, as the wheel has them, it migrates, but writes no new one."""
    site = tmp_path / "site"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(own_revisions.parent / "morag_meta", site / "morag_meta", ignore=ignore)
    shutil.copytree(own_revisions, site / "morag_meta" / "migrations", ignore=ignore)
    said = subprocess.run(
        [sys.executable, "-c", _INSTALLED, str(site), f"sqlite:///{tmp_path / 'm.db'}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert said.stdout.splitlines() == [
        f"{[each.id for each in reversed(migrate.history())]} []",
        "a revision is written in a checkout, not in an installed package",
    ]


def _index(table: str, name: str) -> sa.Index:
    return next(index for index in metadata.tables[table].indexes if index.name == name)
