"""``morag-meta db row-security``: switches PostgreSQL's row security on and off, and says how it stands."""

from __future__ import annotations

from typing import Annotated

import typer

from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_facts, print_json, say
from morag_meta.db import migrate, row_security
from morag_meta.db.migrate import MigrationError, State
from morag_meta.exits import ExitCode

app = typer.Typer(
    name="row-security",
    help="Have PostgreSQL itself keep users' rows apart; as the role that migrates.",
    no_args_is_help=True,
)


@app.command()
def enable(
    role: Annotated[str, typer.Argument(help="The role as which the service connects.")],
    database_url: DatabaseUrl = None,
) -> None:
    """Switch it on for a role that owns nothing, or bring its policies up to date."""
    url = read_settings(database_url).database_url
    row_security.require_owner(url)
    where = migrate.status(url)
    if where.state is not State.CURRENT:
        raise MigrationError(f"the schema is {where.state}: run 'morag-meta db upgrade' first")
    row_security.enable(url, role)
    say(f"row security is on for {role}")


@app.command()
def disable(database_url: DatabaseUrl = None) -> None:
    """Switch it off; the service's role keeps its privileges."""
    row_security.disable(read_settings(database_url).database_url)
    say("row security is off")


@app.command()
def status(output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> ExitCode:
    """Say whether it is ON as this version means it, OFF, or FAULTY, with which it fails."""
    found = row_security.status(read_settings(database_url).database_url)
    facts = {"state": found.state.value, "role": found.role or ""}
    if output is Format.JSON:
        print_json({**facts, "problems": found.problems})
    else:
        print_facts(facts)
        for problem in found.problems:
            say(problem)
    return ExitCode.SCHEMA if found.problems else ExitCode.OK
