"""From a failure to one clear line on stderr and an exit code; never a traceback.

What is unforeseen is one line too: its traceback goes to the log, at the level DEBUG. An API key that was
typed where something else belongs is not repeated, but for what is shown of keys. The codes stand in
``exits.py``.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import structlog
import typer

from morag_meta import errors
from morag_meta.auth.keys import folded
from morag_meta.config.error import ConfigurationError
from morag_meta.db.migration_lock import MigrationError, MigrationLocked, SchemaAhead
from morag_meta.db.url import UrlError
from morag_meta.exits import ExitCode
from morag_meta.server.address import AddressError

_BY_ERROR: tuple[tuple[type[Exception], ExitCode], ...] = (
    (ConfigurationError, ExitCode.CONFIGURATION),
    (UrlError, ExitCode.CONFIGURATION),
    (AddressError, ExitCode.ADDRESS_IN_USE),
    (SchemaAhead, ExitCode.SCHEMA),
    (MigrationLocked, ExitCode.SCHEMA),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.Unavailable, ExitCode.UNREACHABLE),
    (errors.DeadlineExceeded, ExitCode.UNREACHABLE),
    (errors.MetaError, ExitCode.REFUSED),
)
_BY_STATUS = {
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "UNAUTHENTICATED": ExitCode.REFUSED,
    "PERMISSION_DENIED": ExitCode.REFUSED,
    "INVALID_ARGUMENT": ExitCode.REFUSED,
    "FAILED_PRECONDITION": ExitCode.REFUSED,
    "OUT_OF_RANGE": ExitCode.REFUSED,
    "ABORTED": ExitCode.REFUSED,
}

# Typer carries a Click of its own and shows this much of it.
_USAGE_ERROR: Any = typer.BadParameter.__base__

_log = structlog.get_logger(__name__)


class CommandError(Exception):
    """A command ends with this line and this code."""

    def __init__(self, line: str, code: ExitCode = ExitCode.FAILURE) -> None:
        """Keep both."""
        super().__init__(line)
        self.code = code


def run(app: typer.Typer, arguments: list[str] | None) -> ExitCode:
    """Run a command line; return what it returned as an exit code, or that of its failure."""
    try:
        outcome = app(args=arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return _tell("interrupted", ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last door: nobody gets a traceback
        return _tell(*_described(error))
    return ExitCode(outcome) if isinstance(outcome, int) else ExitCode.OK


def status_name(error: grpc.RpcError) -> str:
    """Return the name of the status that a call failed with."""
    # The library types its errors without what every one of them has.
    code: Any = getattr(error, "code", None)
    return str(code().name) if code is not None else "UNKNOWN"


def _tell(text: str, code: ExitCode) -> ExitCode:
    for line in folded(text).splitlines():
        sys.stderr.write(f"error: {line}\n")
    return code


def _described(error: Exception) -> tuple[str, ExitCode]:
    if isinstance(error, _USAGE_ERROR):
        return error.format_message(), ExitCode.USAGE
    if isinstance(error, CommandError):
        return str(error), error.code
    if isinstance(error, MigrationError) and not isinstance(error, SchemaAhead | MigrationLocked):
        # A connection that was refused has run no statement.
        unreachable = getattr(error.__cause__, "statement", "") is None
        return str(error), ExitCode.UNREACHABLE if unreachable else ExitCode.SCHEMA
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return str(error), code
    if isinstance(error, grpc.RpcError):
        name = status_name(error)
        details = getattr(error, "details", str)()
        return f"{name}: {details}", _BY_STATUS.get(name, ExitCode.FAILURE)
    _log.debug("unforeseen failure", exc_info=error)
    return (
        f"unforeseen failure ({type(error).__name__}); set MORAG_LOG_LEVEL=DEBUG to see more",
        ExitCode.FAILURE,
    )
