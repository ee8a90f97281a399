"""The command ``morag-meta``: its groups put together, and how a failure ends it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from morag_meta.cli import db, failures, health, jobs, keys, seed, serve, users
from morag_meta.cli.options import DatabaseUrl, remember
from morag_meta.exits import ExitCode

app = typer.Typer(
    name="morag-meta",
    help="The metadata service for retrieval-augmented generation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.command("health")(health.health)
db.app.command("seed")(seed.seed)
app.add_typer(db.app)
app.add_typer(users.app)
app.add_typer(keys.app)
app.add_typer(jobs.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"morag-meta {version('morag-meta')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    database_url: DatabaseUrl = None,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that hold for every command."""
    del show_version
    remember(context, database_url)


def run(arguments: list[str] | None = None) -> ExitCode:
    """Run one command line and return its exit code; a failure is one clear line on stderr."""
    return failures.run(app, arguments)
