"""The entry of a worker process: ``python -m morag_meta.server.worker``, started by the supervisor alone.

Standard input is a pipe from the parent. Its first line holds the settings, so that no secret stands on
a command line, and its end means that the parent is gone, however that happened.
"""

from __future__ import annotations

import json
import os
import sys

import structlog

from morag_meta import logs
from morag_meta.config.error import ConfigurationError
from morag_meta.config.settings import Settings
from morag_meta.exits import ExitCode
from morag_meta.server.address import AddressError
from morag_meta.server.process import run
from morag_meta.server.tls import TlsError

_log = structlog.get_logger(__name__)


def dump(settings: Settings) -> bytes:
    """Write settings, secrets included, as the line that a worker reads."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    plain = {n: v.get_secret_value() if hasattr(v, "get_secret_value") else v for n, v in values.items()}
    return json.dumps(plain).encode() + b"\n"


def main() -> ExitCode:
    """Read the settings from standard input and serve until it ends."""
    descriptor = sys.stdin.fileno()
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(descriptor, 65_536)
        if not part:
            return ExitCode.OK  # the parent ended before it said anything
        line += part
    settings = Settings(**json.loads(line))
    logs.configure(settings.log_level, settings.log_format)
    structlog.contextvars.bind_contextvars(pid=os.getpid())
    try:
        return run(settings, shared_port=True, lifeline=descriptor)
    except TlsError as error:
        # The parent found them in order: they are being replaced, and a new try will do. No reason to end
        # the workers that serve with those before.
        _log.error("cannot serve yet", problem=str(error))
        return ExitCode.FAILURE
    except ConfigurationError as error:
        _log.error("cannot serve", problem=str(error))
        return ExitCode.CONFIGURATION
    except AddressError as error:
        _log.error("cannot serve", problem=str(error))
        return ExitCode.ADDRESS_IN_USE


if __name__ == "__main__":
    sys.exit(main())
