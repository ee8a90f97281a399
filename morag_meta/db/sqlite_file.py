"""The file of a SQLite database: whether it is there or can be made, and making it for its owner alone.

What does not live here: connections (``db/engine.py``, ``db/migration_lock.py``), and the secrets that are
kept beside the file (``server/secrets.py``).
"""

from __future__ import annotations

import contextlib
import os
import pathlib

import sqlalchemy as sa

from morag_meta.db.url import UrlError, masked, normalize


def is_missing(url: str | sa.URL) -> bool:
    """Say whether the URL names a SQLite file that is not there yet.

    Raises:
        UrlError: the URL cannot be used, or the file is not there and cannot be made in its folder.
    """
    path = _path(url)
    if path is None or os.access(path, os.F_OK):
        return False
    folder = path.absolute().parent
    if not os.access(folder, os.F_OK):
        raise UrlError(f"{masked(url)}: there is no folder {folder}; make it, or name another database")
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise UrlError(f"{masked(url)}: the file is not there, and the folder {folder} may not be written")
    return True


def make_private(url: str | sa.URL) -> None:
    """Make the file (0600) where it is missing, as SQLite itself would let everybody read it.

    What SQLite puts beside the file gets the file's mode. A file that is there is left as it is, and what
    cannot be made is for SQLite to tell.
    """
    path = _path(url)
    if path is not None:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _path(url: str | sa.URL) -> pathlib.Path | None:
    parsed = normalize(url)
    path = parsed.database or ""
    is_plain = parsed.get_backend_name() == "sqlite" and not path.startswith("file:")
    return pathlib.Path(path) if is_plain else None
