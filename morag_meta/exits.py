"""The exit codes of every command; documented for scripts, so a number never changes its meaning.

What does not live here: which error has which code (``cli/failures.py``).
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a finished command tells its caller."""

    OK = 0
    """Done; for ``health``: serving."""
    FAILURE = 1
    """Something else went wrong; the line on stderr says what."""
    UNREACHABLE = 2
    """The server or the database does not answer."""
    NOT_FOUND = 3
    """The named thing does not exist; for ``health``: the server does not know the service."""
    NOT_SERVING = 4
    """The server answers that it is not serving."""
    CONFIGURATION = 5
    """A setting is missing or not accepted."""
    ADDRESS_IN_USE = 6
    """The address cannot be listened on, mostly because another process does."""
    REFUSED = 7
    """The request was understood and refused: not allowed, not valid, or not now."""
    SCHEMA = 8
    """The database's schema is missing, behind, ahead, or not what it should be."""
    JOB_NOT_FINISHED = 9
    """The watched job ended FAILED or CANCELLED."""
    NONCONFORMING = 10
    """``conformance``: a case failed."""
    INCOMPLETE = 11
    """``conformance``: no case failed, but not every case could be run with this key."""
    USAGE = 64
    """The command line itself is wrong."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C, or by a second signal that did not wait for calls in flight."""
