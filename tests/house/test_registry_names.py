"""The repository installs from whatever registry its user has: it names the host of none."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[2]
# In pieces, so that this file does not find itself.
_HOSTS = [
    "pypi org",
    "pythonhosted org",
    "npmjs org",
    "npmjs com",
    "yarnpkg com",
    "proxy golang org",
    "sum golang org",
    "repo1 maven org",
    "repo maven apache org",
    "deb debian org",
    "archive ubuntu com",
    "static crates io",
    "index crates io",
]


def test_no_file_names_a_package_registry() -> None:
    """No file that is or could be committed holds a registry's host name."""
    pattern = re.compile("|".join(re.escape(host.replace(" ", ".")) for host in _HOSTS).encode())
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=_ROOT,
        capture_output=True,
        check=True,
    )
    files = [_ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert files
    assert [str(path) for path in files if path.is_file() and pattern.search(path.read_bytes())] == []
