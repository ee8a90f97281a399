"""``morag-meta user``: accounts, made straight in the database."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from morag_meta.auth.passwords import hash_password
from morag_meta.auth.principal import Role
from morag_meta.cli.accounts import unit_of_work
from morag_meta.cli.failures import CommandError
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_json, say
from morag_meta.exits import ExitCode
from morag_meta.users.actions import create_user

app = typer.Typer(name="user", help="Accounts.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep ``create`` a command of its own, alone as it is."""


@app.command()
def create(
    email: Annotated[str, typer.Argument(help="The email, by which the user logs in.")],
    name: Annotated[
        str, typer.Option("--name", help="The full name; the email's first part if not given.")
    ] = "",
    admin: Annotated[bool, typer.Option("--admin", help="Make an ADMIN, instead of a USER.")] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="The user cannot log in, and calls with API keys alone.")
    ] = False,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Create a user. The password is asked for, or is the first line of standard input."""
    settings = read_settings(database_url)
    hashed = None if no_password else hash_password(_password(), settings.bcrypt_cost)
    role = Role.ADMIN if admin else Role.USER
    with unit_of_work(settings) as uow:
        local = email.strip().partition("@")[0]
        given = name or (local if len(local) > 1 else email.strip())  # a name has two characters at least
        row = create_user(uow, name=given, email=email, role=role, password_hash=hashed)
        uow.commit()
    if output is Format.JSON:
        print_json({"id": row["id"], "email": row["email"], "role": row["role"]})
    else:
        say(f"created {row['role']} {row['email']} {row['id']}")


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CommandError("no password: give it on standard input, or say --no-password", ExitCode.USAGE)
    return password
