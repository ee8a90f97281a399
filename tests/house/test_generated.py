"""The committed generated code is what the protos say. That it works is shown by every other test."""

from __future__ import annotations

import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def _texts(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_generated_code_is_current(tmp_path: Path) -> None:
    """Generating again gives the committed files: no difference, none more, none fewer."""
    subprocess.run(
        ["make", "--no-print-directory", "protos", f"GENERATED={tmp_path}"],
        cwd=_ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    made, committed = _texts(tmp_path / "moragmeta"), _texts(_ROOT / "generated/python/moragmeta")
    assert sorted(made) == sorted(committed)
    assert [name for name in made if made[name] != committed[name]] == [], "run `make protos`"
