"""Logging: JSON or console lines on stderr, from this service and from every library alike.

Secrets and email addresses are blotted out here, whoever logged them. What does not live here: what
is logged when; ``rpc/dispatch.py`` binds the request id and the principal of a call.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

BLOT = "[redacted]"

_SECRET_NAME = re.compile(
    r"password|passwd|passphrase|secret|token|api_?key$|^key$|authorization|cookie|credential|private_key",
    re.IGNORECASE,
)
_SECRET_VALUES = (
    (re.compile(r"morag_[A-Za-z0-9_-]{16,}"), BLOT),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), BLOT),
    (re.compile(r"(?i)\bbearer\s+\S+"), f"Bearer {BLOT}"),
    (re.compile(r"(://[^:/?#@\s]*):[^\s]*@"), rf"\1:{BLOT}@"),
    (re.compile(r"(?i)\b(password|passwd|pwd|secret)(['\"]?\s*[=:]\s*)[^\s,;&]+"), rf"\1\2{BLOT}"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*"), "[email]"),
)
_MAXIMUM_DEPTH = 6


class _Lines:
    """A stream of log lines: one that cannot be written is dropped, whatever a full disk or a pipe says.

    A line goes to the file at once, past the buffer, which would keep it and fail with it again at exit.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Write to the stream, which is None in a process that was started without one."""
        self._stream = stream
        self._raw = getattr(getattr(stream, "buffer", None), "raw", None)

    def isatty(self) -> bool:
        """Whether a person reads the lines."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def write(self, text: str) -> None:
        """Write whole lines, or nothing."""
        try:
            if self._raw is not None:
                rest = memoryview(text.encode(errors="backslashreplace"))
                while rest:
                    rest = rest[self._raw.write(rest) or len(rest) :]  # None: a full pipe that does not block
            elif self._stream is not None:
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            return

    def flush(self) -> None:
        """Nothing waits."""


def configure(level: str = "INFO", layout: Literal["json", "console"] | None = None) -> None:
    """Set up logging for this process; without a layout, a terminal gets console and a pipe JSON."""
    lines = _Lines(sys.stderr)
    layout = layout or ("console" if lines.isatty() else "json")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer = _renderer(layout, colors=lines.isatty())
    least = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
        cache_logger_on_first_use=False,
    )
    _adopt_stdlib(lines, shared, renderer, least)


def _renderer(layout: str, *, colors: bool) -> Processor:
    if layout == "json":
        # Made once: json.dumps would make one for each line.
        encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
        return structlog.processors.JSONRenderer(lambda event, **_: encode(event))
    return structlog.dev.ConsoleRenderer(colors=colors)


def _adopt_stdlib(lines: _Lines, shared: list[Processor], renderer: Processor, least: int) -> None:
    """Route the standard library's loggers (Alembic, SQLAlchemy, asyncio, warnings) the same way."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, renderer],
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    # At INFO Alembic tells about itself; which revisions were applied is told by whoever applied them.
    logging.getLogger("alembic").setLevel(max(least, logging.WARNING))
    # Of a header that is not UTF-8, which anybody may send, gRPC tells in two tracebacks, with its value.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_bad_header)
    logging.captureWarnings(capture=True)


def _is_no_bad_header(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Invalid encoding")


def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Blot out the values of secret-looking keys, and what looks like a secret in any text."""
    del logger, method
    for name, value in event.items():
        if type(value) is str and not _secret_name(name) and not _suspicious(value.lower()):
            continue  # as almost every value of almost every line
        event[name] = _clean(name, value, _MAXIMUM_DEPTH)
    return event


def _clean(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _secret_name(name):
        return BLOT
    if isinstance(value, str):
        return _clean_text(value)
    if depth and isinstance(value, Mapping):
        return {str(k): _clean(str(k), v, depth - 1) for k, v in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_clean("", v, depth - 1) for v in value]
    return _clean_text(str(value))


@functools.lru_cache(maxsize=1024)
def _secret_name(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _suspicious(low: str) -> bool:
    """Spare almost every text the patterns; written out because every logged value passes here."""
    return (
        "@" in low
        or "morag_" in low
        or "eyj" in low
        or "bearer" in low
        or "passw" in low
        or "secret" in low
        or "pwd" in low
    )


def _clean_text(text: str) -> str:
    if not _suspicious(text.lower()):
        return text
    for pattern, replacement in _SECRET_VALUES:
        text = pattern.sub(replacement, text)
    return text
