"""What is installed is what is locked, and what is locked is pinned, complete and free to be used."""

from __future__ import annotations

import contextlib
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

_FREE = re.compile(r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation")
# The driver of PostgreSQL, under the LGPL: used as a library, unchanged, and only where it is installed.
_ASKED_AFTER = {"psycopg2-binary"}
_ROOT = Path(__file__).parents[2]
_LOCKS = sorted((_ROOT / "requirements").glob("*.txt"))
_PINNED = re.compile(r"([a-z0-9.-]+)==(\S+)(?: ; .*)?")
_HASHES = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def _requirements(lock: Path) -> list[list[str]]:
    """Give each requirement of a lock with the lines that belong to it."""
    joined = lock.read_text().replace("\\\n", "\n    ")
    entries: list[list[str]] = []
    for line in joined.splitlines():
        if line.strip() and not line.startswith((" ", "#")):
            entries.append([line.strip()])
        elif line.strip() and not line.strip().startswith("#"):
            entries[-1].append(line.strip())
    return entries


def _pins(name: str) -> dict[str, str]:
    found = {}
    for entry in _requirements(_ROOT / f"requirements/{name}.txt"):
        pin = _PINNED.fullmatch(entry[0])
        assert pin, entry[0]
        found[pin[1]] = pin[2]
    return found


@pytest.mark.parametrize("lock", _LOCKS, ids=lambda lock: lock.stem)
def test_every_package_is_pinned_with_its_hashes(lock: Path) -> None:
    """Each line of a lock names one version of a package from the index, and what its files must hash to."""
    entries = _requirements(lock)
    assert entries
    for head, *rest in entries:
        assert _PINNED.fullmatch(head), head
        assert rest, head
        assert all(_HASHES.fullmatch(line) for line in rest), head


def test_the_service_runs_with_what_was_tested() -> None:
    """The packages of the service have the same versions in the lock of the tests, and are installed so."""
    runtime, dev = _pins("runtime"), _pins("dev")
    assert runtime.items() <= dev.items()
    installed = {name: found.version for name, found in _installed(runtime).items()}
    assert installed.items() <= runtime.items()
    assert len(installed) >= len(runtime) - 1  # colorama is for Windows


def test_licences_are_known_to_fit() -> None:
    """What the service needs may be used and passed on without conditions beyond naming it, but for one."""
    other = {
        name
        for name, found in _installed(_pins("runtime")).items()
        if not any(_FREE.search(text) for text in _licences(found.metadata))
    }
    assert other == _ASKED_AFTER


def _installed(pins: dict[str, str]) -> dict[str, metadata.Distribution]:
    found = {}
    for name in pins:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.distribution(name)
    return found


def _licences(package: Any) -> list[str]:
    """Give what a package says of its licence, in any of the ways in which packages say it."""
    classified = [text for text in package.get_all("Classifier") or [] if text.startswith("License ::")]
    return [text for text in (package["License-Expression"], package["License"], *classified) if text]
