"""``morag-meta db``: the schema of a database, from nothing to head and back.

What development data is stands in ``seed.py``.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from morag_meta.cli import row_security
from morag_meta.cli.accounts import create_admin
from morag_meta.cli.failures import CommandError
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_facts, print_json, print_table, say, warn
from morag_meta.cli.seed import plant, seed
from morag_meta.db import migrate
from morag_meta.db import row_security as walls
from morag_meta.db.migrate import State, Status
from morag_meta.db.survey import Survey, survey
from morag_meta.db.url import dialect_name, masked
from morag_meta.exits import ExitCode

app = typer.Typer(name="db", help="Make, change and look at the database's schema.", no_args_is_help=True)

Confirm = Annotated[bool, typer.Option("--confirm", help="Do not ask.")]
Sql = Annotated[bool, typer.Option("--sql", help="Print the SQL and change nothing.")]


@app.command()
def init(
    admin: Annotated[bool, typer.Option("--create-admin", help="Create an ADMIN with an API key.")] = False,
    admin_email: Annotated[str, typer.Option("--admin-email", help="The admin's email.")] = "",
    setup_dev_data: Annotated[
        bool, typer.Option("--setup-dev-data", help="Add development data, as db seed does.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Add development data to a database other than SQLite.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Bring the database to the newest revision, from nothing if need be, and fill it as asked.

    May be repeated: what is there already stays as it is.
    """
    settings = read_settings(database_url)
    if admin and not admin_email:
        raise CommandError("--create-admin needs --admin-email", ExitCode.USAGE)
    _tell(migrate.upgrade(settings.database_url), "applied", "the schema is current already")
    if admin:
        create_admin(settings, admin_email)
    if setup_dev_data:
        plant(settings, yes=yes)


@app.command(context_settings={"ignore_unknown_options": True})
def upgrade(
    revision: Annotated[str, typer.Argument(help="A revision, head, or +1.")] = "head",
    sql: Sql = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Bring the database forward."""
    url = read_settings(database_url).database_url
    if sql:
        say(migrate.offline_sql(dialect_name(url)))
        return
    _tell(migrate.upgrade(url, revision), "applied", "nothing to do")
    if migrate.status(url).state is State.CURRENT and walls.renew(url):
        say("row security brought up to date")


@app.command(context_settings={"ignore_unknown_options": True})
def downgrade(
    revision: Annotated[str, typer.Argument(help="A revision, -1, or base for nothing at all.")],
    sql: Sql = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Take the database back; what only a newer schema can hold is lost."""
    url = read_settings(database_url).database_url
    if sql:
        say(migrate.offline_sql(dialect_name(url), down=True))
        return
    _tell(migrate.downgrade(url, revision), "undone", "nothing to do")


@app.command()
def revision(
    message: Annotated[str, typer.Argument(help="What the revision does, in a few words.")],
    empty: Annotated[
        bool, typer.Option("--empty", help="Do not compare the tables with the database.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Write a new revision, with the difference between the tables and a current database."""
    settings = read_settings(database_url)
    say(str(migrate.revision(message, None if empty else settings.database_url)))


@app.command()
def history(output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> None:
    """List the revisions, newest first, and mark the one that the database is at."""
    at = migrate.current(read_settings(database_url).database_url)
    revisions = migrate.history()
    if output is Format.JSON:
        for each in revisions:
            facts = {"revision": each.id, "previous": each.previous, "message": each.message}
            print_json({**facts, "current": each.id == at})
        return
    rows = [("*" if each.id == at else "", each.id, each.previous, each.message) for each in revisions]
    print_table(("", "revision", "previous", "message"), rows)


@app.command()
def status(output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> None:
    """Say which revision the database is at, and which are to come."""
    _print_facts(_status_facts(migrate.status(read_settings(database_url).database_url)), output)


@app.command()
def check(output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> ExitCode:
    """Print connection, schema, revision, tables and row counts; fails unless the schema is current."""
    url = read_settings(database_url).database_url
    found, where = survey(url), migrate.status(url)
    facts = {"connection": masked(url), "server": found.version, "schema": found.schema}
    facts |= _status_facts(where)
    if found.is_walled:
        warn("row security hides rows from this role: count them as the role that owns the tables")
    if output is Format.JSON:
        print_json({**facts, "rows": found.rows, "missing": found.missing})
    else:
        print_facts(facts)
        print_table(("table", "rows"), _table_rows(found))
    return ExitCode.OK if where.state is State.CURRENT and not found.missing else ExitCode.SCHEMA


@app.command()
def verify(output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> ExitCode:
    """Compare the database's tables with those of this version, and list every difference."""
    url = read_settings(database_url).database_url
    where = migrate.status(url)
    found = migrate.check_differences(url) if where.state is not State.EMPTY else ["no schema"]
    if output is Format.JSON:
        print_json({"state": where.state, "differences": found})
    else:
        for line in found or ["the schema is as it should be"]:
            say(line)
    return ExitCode.OK if where.state is State.CURRENT and not found else ExitCode.SCHEMA


@app.command()
def reset(confirm: Confirm = False, database_url: DatabaseUrl = None) -> None:
    """Drop every table of this service with all rows, and make them anew."""
    url = read_settings(database_url).database_url
    if not confirm:
        if not sys.stdin.isatty():
            raise CommandError("reset drops everything: say so with --confirm", ExitCode.USAGE)
        typer.confirm(f"Drop every table of {masked(url)}?", abort=True, err=True)
    role = walls.role_of(url)
    dropped = migrate.reset(url)
    migrate.upgrade(url)
    if role is not None:
        walls.enable(url, role)
    say(f"dropped {len(dropped)} tables and made the schema anew")


app.command("seed")(seed)
app.add_typer(row_security.app)


def _tell(revisions: list[str], done: str, nothing: str) -> None:
    for each in revisions:
        say(f"{done} {each}")
    if not revisions:
        say(nothing)


def _status_facts(where: Status) -> dict[str, str]:
    return {
        "revision": where.current or "none",
        "head": where.head,
        "state": where.state.value,
        "pending": " ".join(where.pending) or "none",
    }


def _print_facts(facts: dict[str, str], output: Format) -> None:
    if output is Format.JSON:
        print_json(facts)
    else:
        print_facts(facts)


def _table_rows(found: Survey) -> list[tuple[str, int | str]]:
    return [*found.rows.items(), *((name, "missing") for name in found.missing)]
