"""Reaching a running server: its address, the channel, and the key that opens it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import grpc
import typer

from morag_meta.cli.failures import CommandError
from morag_meta.config import KEY_VARIABLE, client_key
from morag_meta.exits import ExitCode

Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="HOST:PORT",
        envvar="MORAG_TARGET",
        help="The server; where this machine's own would listen if not given.",
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help=f"A file that holds the API key, '-' for standard input; {KEY_VARIABLE} if not given.",
        show_default=False,
    ),
]

_OPTIONS = (
    # A server that went away without a word is noticed within three quarters of a minute.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def _reachable(target: str) -> str:
    """Turn an address to listen on into one to call: every interface means this machine."""
    return re.sub(r"^(0\.0\.0\.0|\*|\[::\]):", "127.0.0.1:", target)


def open_channel(target: str) -> grpc.Channel:
    """Open a channel for plain calls."""
    return grpc.insecure_channel(_reachable(target), options=_OPTIONS)


def open_async_channel(target: str) -> grpc.aio.Channel:
    """Open a channel for streams."""
    return grpc.aio.insecure_channel(_reachable(target), options=_OPTIONS)


def credentials(key_file: Path | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata with the API key; it comes from a file or the environment, never an argument.

    Raises:
        CommandError: there is none, or the file cannot be read.
    """
    if key_file is None:
        key = client_key()
    elif str(key_file) == "-":
        key = sys.stdin.readline()
    else:
        try:
            key = key_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{key_file} cannot be read: {error}", ExitCode.CONFIGURATION) from None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable():
        raise CommandError(f"no API key: set {KEY_VARIABLE} or give --key-file", ExitCode.CONFIGURATION)
    return (("x-api-key", key),)
