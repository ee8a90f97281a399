"""Reaching a running server: its address, the channel with or without TLS, and the key that opens it."""

from __future__ import annotations

import contextvars
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import grpc
import typer

from morag_meta.cli.failures import CommandError
from morag_meta.config.variables import (
    CA_VARIABLE,
    CLIENT_CERT_VARIABLE,
    CLIENT_KEY_VARIABLE,
    KEY_VARIABLE,
    TARGET_VARIABLE,
    client_key,
)
from morag_meta.exits import ExitCode

Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="HOST:PORT",
        envvar=TARGET_VARIABLE,
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
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        envvar=CA_VARIABLE,
        help="Call by TLS, and trust a server that these authorities (PEM) vouch for.",
        show_default=False,
    ),
]
ClientCert = Annotated[
    Path | None,
    typer.Option(
        "--client-cert",
        metavar="FILE",
        envvar=CLIENT_CERT_VARIABLE,
        help="The certificate (PEM) to show to a server that asks for one.",
        show_default=False,
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option(
        "--client-key",
        metavar="FILE",
        envvar=CLIENT_KEY_VARIABLE,
        help="The private key (PEM) of that certificate.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """What was said of TLS before the command; without a CA file calls are not encrypted."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


_tls: contextvars.ContextVar[TlsOptions] = contextvars.ContextVar("tls", default=TlsOptions())  # noqa: B039

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


def remember_tls(options: TlsOptions) -> None:
    """Keep what was said of TLS before the command."""
    _tls.set(options)


def open_channel(target: str, *, plaintext: bool = False) -> grpc.Channel:
    """Open a channel for plain calls; ``plaintext`` is for a port that never speaks TLS.

    Raises:
        CommandError: the files of TLS do not belong together or cannot be read.
    """
    tls = None if plaintext else _tls_credentials()
    if tls is None:
        return grpc.insecure_channel(_reachable(target), options=_OPTIONS)
    return grpc.secure_channel(_reachable(target), tls, options=_OPTIONS)


def open_async_channel(target: str) -> grpc.aio.Channel:
    """Open a channel for streams.

    Raises:
        CommandError: as ``open_channel``.
    """
    tls = _tls_credentials()
    if tls is None:
        return grpc.aio.insecure_channel(_reachable(target), options=_OPTIONS)
    return grpc.aio.secure_channel(_reachable(target), tls, options=_OPTIONS)


def _tls_credentials() -> grpc.ChannelCredentials | None:
    given = _tls.get()
    if (given.certificate is None) != (given.key is None):
        raise CommandError("--client-cert and --client-key belong together", ExitCode.CONFIGURATION)
    if given.ca is None:
        if given.certificate is not None:
            raise CommandError("--client-cert is for TLS: give --ca-file too", ExitCode.CONFIGURATION)
        return None
    files = (given.ca, given.key, given.certificate)
    return grpc.ssl_channel_credentials(*(None if file is None else _pem(file) for file in files))


def _pem(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}", ExitCode.CONFIGURATION) from None
    if b"-----BEGIN " not in data:
        raise CommandError(f"{file} is not a PEM file", ExitCode.CONFIGURATION)
    return data


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
