"""Files that hold a secret: made and replaced complete or not at all, for their owner's eyes alone.

What stands in such a file is its user's matter (``auth/secret_files.py``).
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from morag_meta.config.error import ConfigurationError


def write_once(path: Path, text: str) -> None:
    """Make the file (0600) unless it is there; of several makers in several processes one wins.

    It is written beside ``path``, flushed to the disk, and then linked: nobody ever sees half of it, and
    an existing file is never replaced.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    with _written(path, text) as name:
        try:
            os.link(name, path)
        except FileExistsError:
            return
        _settle(path.parent)


def replace(path: Path, text: str) -> None:
    """Put a new file (0600) in the place of one: at each moment, a power cut's too, one of both is there.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; the old file is there.
    """
    with _written(path, text) as name:
        Path(name).replace(path)
        _settle(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of the file left beside it when they were killed; for whoever alone writes it.

    Raises:
        OSError: one cannot be removed.
    """
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def _written(path: Path, text: str) -> Iterator[str]:
    """Write a file beside ``path``, flushed to the disk, and give its name, under which it does not stay."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield name
    finally:
        Path(name).unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Have a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_or_create(path: Path, text: str, what: str) -> str:
    """Give the text of the file as ``read`` does; it is made of ``text`` first where there is none.

    ``what`` names the secret in errors; they never show its text.

    Raises:
        ConfigurationError: the file cannot be made or read, or is open to others.
    """
    try:
        if not path.exists():
            write_once(path, text)
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be read or made: {error.strerror}") from None
    return read(path, what)


def read(path: Path, what: str) -> str:
    """Give the text of the file.

    ``what`` names the secret in errors; they never show its text.

    Raises:
        ConfigurationError: the file cannot be read, or is open to others.
    """
    try:
        content, mode = path.read_text("utf-8"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not text"
        raise ConfigurationError(f"{what} {path} cannot be read: {cause}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(f"{what} {path} is open to others: chmod 600 {path}")
    return content
