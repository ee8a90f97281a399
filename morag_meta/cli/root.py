"""The command ``morag-meta``: its groups put together, and how a failure ends it.

Only the group that is called is loaded: a container asks ``morag-meta health`` every few seconds, and
need not load the service for it.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from morag_meta import logs
from morag_meta.cli import failures
from morag_meta.cli.options import DatabaseUrl, remember
from morag_meta.cli.target import CaFile, ClientCert, ClientKey, TlsOptions, remember_tls
from morag_meta.exits import ExitCode

_COMMANDS = ("serve", "health", "conformance")
_GROUPS = {
    "db": "db",
    "user": "users",
    "key": "keys",
    "grant": "grants",
    "quotas": "quotas",
    "audit": "audit",
    "secrets": "secrets",
    "jobs": "jobs",
    "workers": "workers",
}


def make_app(wanted: str | None = None) -> typer.Typer:
    """Put the command together: with one command or group alone if ``wanted`` names it, else with all."""
    app = typer.Typer(
        name="morag-meta",
        help="The metadata service for retrieval-augmented generation.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in _COMMANDS:
        if wanted in (None, name):
            app.command(name)(getattr(importlib.import_module(f"morag_meta.cli.{name}"), name))
    for name, module in _GROUPS.items():
        if wanted in (None, name):
            app.add_typer(importlib.import_module(f"morag_meta.cli.{module}").app)
    return app


def run(arguments: list[str] | None = None) -> ExitCode:
    """Run one command line and return its exit code; a failure is one clear line on stderr."""
    logs.configure("WARNING")
    given = sys.argv[1:] if arguments is None else arguments
    wanted = given[0] if given and given[0] in (*_COMMANDS, *_GROUPS) else None
    return failures.run(make_app(wanted), given)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"morag-meta {version('morag-meta')}")
        raise typer.Exit


def _root(
    database_url: DatabaseUrl = None,
    ca_file: CaFile = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that hold for every command."""
    del show_version
    remember(database_url)
    remember_tls(TlsOptions(ca_file, client_cert, client_key))
