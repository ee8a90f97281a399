"""Files that hold a secret: made once, complete or not at all, for their owner's eyes alone.

What stands in such a file is its user's matter (``auth/secret.py``).
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from morag_meta.config import ConfigurationError


def write_once(path: Path, text: str) -> None:
    """Make the file (0600) unless it is there; of several makers in several processes one wins.

    It is written beside ``path``, flushed to the disk, and then linked: nobody ever sees half of it, and
    an existing file is never replaced.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        Path(name).unlink()


def read_or_create(path: Path, text: str, what: str) -> str:
    """Give the text of the file, which is made of ``text`` first where there is none.

    ``what`` names the secret in errors; they never show its text.

    Raises:
        ConfigurationError: the file cannot be made or read, or is open to others.
    """
    try:
        if not path.exists():
            write_once(path, text)
        content, mode = path.read_text("utf-8"), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not text"
        raise ConfigurationError(f"{what} {path} cannot be read or made: {cause}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(f"{what} {path} is open to others: chmod 600 {path}")
    return content
