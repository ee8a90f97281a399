"""What is installed from the built wheel works away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it, which is all that installing it does to its files."""
    out, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def _python(installed: Path, work: Path, code: str) -> str:
    """Run code with the wheel's files before the checkout's, in a folder outside of both."""
    entered = f"import sys; sys.path.insert(0, {str(installed)!r})\n{code}"
    command = [sys.executable, "-I", "-c", entered]
    return subprocess.run(command, cwd=work, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_wheel_carries_service_stubs_and_migrations(installed: Path) -> None:
    """Code, typed stubs, both type markers, every migration and the template of new ones are in the wheel."""
    for name in ("morag_meta/py.typed", "moragmeta/py.typed", "morag_meta/migrations/script.py.mako"):
        assert (installed / name).is_file(), name
    kept = {path.name for path in (_ROOT / "generated/python/moragmeta/v1").glob("*.py*")}
    assert {path.name for path in (installed / "moragmeta/v1").iterdir()} == kept
    revisions = {path.name for path in (_ROOT / "migrations/versions").glob("*.py")}
    assert {path.name for path in (installed / "morag_meta/migrations/versions").glob("*.py")} == revisions
    assert not (installed / "tests").exists()


def test_wheel_imports_service_and_stubs(installed: Path, tmp_path: Path) -> None:
    """Both import roots come from the wheel and belong together."""
    code = (
        "import morag_meta.uow, morag_meta.cli, moragmeta.v1.documents_pb2_grpc as stubs\n"
        "print(morag_meta.__file__, stubs.__file__)"
    )
    assert [Path(name).is_relative_to(installed) for name in _python(installed, tmp_path, code).split()] == [
        True,
        True,
    ]


def test_wheel_migrates_a_database(installed: Path, tmp_path: Path) -> None:
    """The wheel's own migrations make a database from nothing."""
    code = (
        "from morag_meta.db import migrate\n"
        "print(migrate.upgrade('sqlite:///fresh.db'), migrate.upgrade('sqlite:///fresh.db'))"
    )
    first, _, second = _python(installed, tmp_path, code).partition("] [")
    assert "0001" in first
    assert second.strip() == "]"


def test_wheel_installs_the_command(installed: Path) -> None:
    """Installing makes the command `morag-meta`."""
    (points,) = installed.glob("morag_meta-*.dist-info/entry_points.txt")
    assert "morag-meta = morag_meta.cli:main" in points.read_text()
