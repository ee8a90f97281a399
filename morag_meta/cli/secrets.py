"""``morag-meta secrets``: changing the root secret and the credential key, and how far that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from morag_meta.cli.failures import CommandError
from morag_meta.cli.generations import next_steps, time_text
from morag_meta.cli.options import DatabaseUrl, Format, Output, read_settings
from morag_meta.cli.output import print_facts, print_json, say
from morag_meta.exits import ExitCode
from morag_meta.server.rotation import PAUSE_SECONDS, Rotation, RotationError, Standing
from morag_meta.wording import number_of

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
    """Show the generations of each secret, what is of which, and what can be done next."""
    standing = Rotation(read_settings(database_url), say).standing()
    facts = _facts(standing)
    if output is Format.JSON:
        print_json(facts)
        return
    generations, next_steps = facts.pop("generations"), facts.pop("next")
    print_facts({name: "" if value is None else value for name, value in facts.items()})
    for each in generations:
        does = "makes" if each["makes"] else "is accepted"
        say(f"{each['secret']} {each['id']} {does}, {number_of(each['rows'], 'row')}")
    for line in next_steps:
        say(line)


def _facts(standing: Standing) -> dict[str, Any]:
    held, end = standing.held, standing.end
    return {
        "finished": standing.is_finished,
        "secret_key": _phase(standing.root),
        "credential_keys": _phase(standing.ring),
        **{f"old_{name}": rows for name, rows in held.hashes.items()},
        "old_servers": held.credentials,
        "old_sessions": held.sessions,
        "unreadable": held.root.unknown + held.ring.unknown,
        "finish_from": None if end is None else time_text(end),
        "generations": [
            {"secret": secret, "id": id, "makes": place == 0, "rows": rows}
            for secret, made in (("secret_key", held.root), ("credential_keys", held.ring))
            for place, (id, rows) in enumerate(made.rows.items())
        ],
        "next": list(next_steps(standing)),
    }


def _phase(phase: Any) -> str:
    return "environment" if phase is None else phase.value or "settled"


def _said(standing: Standing) -> Iterator[str]:
    held = standing.held
    if held.sessions and held.last_session is not None:
        sessions = f"{number_of(held.sessions, 'session')} {'goes' if held.sessions == 1 else 'go'} on"
        yield f"{sessions} by the generation before until {time_text(held.last_session)}"
    if standing.access_end is not None:
        yield f"access tokens of the generation before end by {time_text(standing.access_end)}"
    yield from next_steps(standing)
    if standing.is_finished:
        yield "done: there is one generation"
