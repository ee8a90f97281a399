"""What can be done next with the generations of each secret, in words for a person.

Rows alone do not tell the beginning of a change in the environment from its end: in both every row is of
the first generation. So nothing said here takes the second one for the one before.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from morag_meta.auth.secret_files import Phase
from morag_meta.server.renewing import Made
from morag_meta.server.rotation import Standing
from morag_meta.wording import number_of


def next_steps(standing: Standing) -> Iterator[str]:
    """Say in a line each what is to be done now; nothing where one generation made all there is."""
    held = standing.held
    for variable, made in (("MORAG_SECRET_KEY", held.root), ("MORAG_CREDENTIAL_KEYS", held.ring)):
        if made.unknown:
            are = "is" if made.unknown == 1 else "are"
            yield (
                f"{number_of(made.unknown, 'row')} {are} of no generation of {variable} that is given: put "
                "the one that made them behind the others, and run 'morag-meta secrets rotate'; else they "
                "stay as they are"
            )
    if Phase.NEXT in (standing.root, standing.ring):
        yield "the next generation is accepted: run 'morag-meta secrets rotate' to go on"
    elif not standing.is_settled:
        when = "now" if standing.end is None else f"from {time_text(standing.end)} on"
        yield (
            f"both generations are accepted: run 'morag-meta secrets rotate' {when} to finish, "
            "or with --cut-off"
        )
    if standing.root is None:
        yield from _in_environment("MORAG_SECRET_KEY", held.root, standing)
    if standing.ring is None:
        yield from _in_environment("MORAG_CREDENTIAL_KEYS", held.ring, None)


def _in_environment(variable: str, made: Made, holders: Standing | None) -> Iterator[str]:
    """Say it of a secret in the environment; ``holders`` tells what clients hold of it, if they do."""
    first, *others = made.rows
    if not others:
        return
    needed = {id: made.rows[id] for id in others if made.rows[id]}
    for id, rows in needed.items():
        yield (
            f"{variable}: {number_of(rows, 'row')} need {id}, which must not be removed: where it is the one "
            "before, run 'morag-meta secrets rotate'; where it is the next one, put it first everywhere"
        )
    is_whole = not needed and not made.unknown
    for id in others:
        if id not in needed:
            what = f"every row is of the first generation ({first})" if is_whole else f"no row is of {id}"
            yield (
                f"{variable}: {what}: where {id} is the next one, put "
                f"it first; where it is the one before, it can be removed{_when(holders)}"
            )


def _when(holders: Standing | None) -> str:
    """Say from when on nothing of a client would be cut off."""
    if holders is None:
        return " once no process runs that makes by it"
    if holders.access_end is None:
        waits = " a quarter of an hour after the last process that made by it was stopped"
        session = holders.held.last_session
        return waits if session is None else f"{waits}, and from {time_text(session)} on"
    end = holders.end or holders.access_end
    return f" from {time_text(end)} on"


def time_text(time: dt.datetime) -> str:
    """Write a moment, to the second, in UTC."""
    return time.astimezone(dt.UTC).isoformat(timespec="seconds")
