"""``morag-meta serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from morag_meta import logs
from morag_meta.cli.options import DatabaseUrl, read_settings
from morag_meta.cli.output import say
from morag_meta.exits import ExitCode
from morag_meta.server.start import start


def serve(
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", help="Serving processes that share the port.", show_default="1"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", "-a", metavar="HOST:PORT", help="Where to listen, instead of MORAG_GRPC_ADDRESS."
        ),
    ] = None,
    no_migrate: Annotated[
        bool,
        typer.Option("--no-migrate", help="Leave the schema alone, and refuse one that is not current."),
    ] = False,
    accept_lost_secrets: Annotated[
        bool,
        typer.Option(
            "--accept-lost-secrets",
            help="Start although no API key, or no sealed credential, can be read by the secrets given.",
        ),
    ] = False,
    database_url: DatabaseUrl = None,
) -> ExitCode:
    """Serve until SIGTERM or Ctrl-C; a second one does not wait for calls in flight."""
    settings = read_settings(
        database_url, workers=workers, grpc_address=address, auto_migrate=False if no_migrate else None
    )
    logs.configure(settings.log_level, settings.log_format)
    return start(settings, announce=say, accept_lost=accept_lost_secrets)
