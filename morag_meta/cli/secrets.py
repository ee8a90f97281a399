"""``morag-meta secrets``: changing the root secret and the credential key, and how far that is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from morag_meta.cli.failures import CommandError
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_facts, print_json, say
from morag_meta.exits import ExitCode
from morag_meta.server.rotation import PAUSE_SECONDS, Rotation, RotationError, Standing

app = typer.Typer(name="secrets", help="Change the root secret and the credential key.", no_args_is_help=True)


@app.command()
def rotate(
    cut_off: Annotated[
        bool,
        typer.Option("--cut-off", help="Do not wait for what clients hold: end it, and the old secret, now."),
    ] = False,
    pause: Annotated[
        float,
        typer.Option("--pause", min=1.2, metavar="SECONDS", help="Pause between the steps."),
    ] = PAUSE_SECONDS,
    output: Output = Format.TABLE,
    database_url: DatabaseUrl = None,
) -> None:
    """Change every secret for a next one while the service runs, or go on with that.

    It stops short of what would cut clients off, and says from when on it can be run again to finish. Where
    it was killed, run it again. Secrets in the environment are changed there, and rows renewed by this.
    """
    quiet = output is Format.JSON
    rotation = Rotation(read_settings(database_url), (lambda _: None) if quiet else say, pause=pause)
    try:
        standing = rotation.run(cut_off=cut_off)
    except RotationError as error:
        raise CommandError(str(error), ExitCode.REFUSED) from None
    if quiet:
        print_json(_facts(standing))
        return
    for line in _said(standing):
        say(line)


@app.command()
def status(output: Output = Format.TABLE, database_url: DatabaseUrl = None) -> None:
    """Show the generations of each secret, and what only an old one can read."""
    facts = _facts(Rotation(read_settings(database_url), say).standing())
    if output is Format.JSON:
        print_json(facts)
        return
    print_facts({name: "" if value is None else value for name, value in facts.items()})


def _facts(standing: Standing) -> dict[str, Any]:
    held, end = standing.held, standing.end
    return {
        "finished": standing.is_settled and not held.rows and not held.sessions,
        "secret_key": _phase(standing.root),
        "credential_keys": _phase(standing.ring),
        **{f"old_{name}": rows for name, rows in held.hashes.items()},
        "old_servers": held.credentials,
        "old_sessions": held.sessions,
        "finish_from": None if end is None else _time(end),
    }


def _phase(phase: Any) -> str:
    return "environment" if phase is None else phase.value or "settled"


def _said(standing: Standing) -> Iterator[str]:
    held = standing.held
    if held.rows:
        yield f"{held.rows} rows are of a generation that is not there, and stay as they are (secrets status)"
    if held.sessions and held.last_session is not None:
        yield f"{held.sessions} sessions go on by the generation before until {_time(held.last_session)}"
    if standing.access_end is not None:
        yield f"access tokens of the generation before end by {_time(standing.access_end)}"
    if not standing.is_settled:
        when = "now" if standing.end is None else f"from {_time(standing.end)} on"
        yield f"both generations are accepted: run this again {when} to finish, or with --cut-off"
    elif standing.root is None or standing.ring is None:
        yield "rows are renewed: remove what is old from the environment as docs/secrets.md says"
    else:
        yield "done: there is one generation"


def _time(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).isoformat(timespec="seconds")
