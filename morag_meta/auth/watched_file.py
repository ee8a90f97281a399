"""A secret's file as it now is: read again, by the process that uses it, when another one replaced it.

Whoever asks learns what stood in the file at most ``LOOK_SECONDS`` before. So a change that is made in two
steps, further apart than that, finds every process of the machine knowing of the first step when any of
them takes the second. What the steps are stands in ``server/rotation.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from morag_meta.auth import private_file
from morag_meta.config.error import ConfigurationError

LOOK_SECONDS: Final = 1.0

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class WatchedFile(Generic[T]):
    """Gives what is made of a file's text, each time as of a moment ago; for any thread."""

    def __init__(self, path: Path, what: str, make: Callable[[str], T]) -> None:
        """Read the file at once; ``what`` names it in errors.

        Raises:
            ConfigurationError: it cannot be read or used, or is open to others.
        """
        self._path, self._what, self._make = path, what, make
        self._seen = self._mark()
        self._next = time.monotonic() + LOOK_SECONDS
        self._made = make(private_file.read(path, what))

    def __call__(self) -> T:
        """Give it; what can no longer be read or used stays as it was before."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            self._look()
        return self._made

    def _look(self) -> None:
        mark = self._mark()
        if mark == self._seen:
            return
        self._seen = mark
        try:
            self._made = self._make(private_file.read(self._path, self._what))
        except ConfigurationError as error:
            _log.error("a changed file is not taken up", problem=str(error))
        else:
            _log.info("changed file read", file=str(self._path))

    def _mark(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_ino, status.st_mtime_ns, status.st_size)
