"""What commands print: tables and plain lines on stdout, warnings and failures on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# Ids and names are there to be copied: no pipe gets them cut to the width of a terminal it has not.
_PIPE_WIDTH = 240
_ID_WIDTH = 36


def console() -> Console:
    """Return the console of stdout; wide where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=False)


def say(line: str) -> None:
    """Print one line of result, as it is."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def warn(line: str) -> None:
    """Print one line of warning on stderr."""
    sys.stderr.write(f"warning: {line}\n")


def print_json(value: Any) -> None:
    """Print a value as JSON: on one line, so that lines can follow each other."""
    say(json.dumps(value, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Print rows as a table; None shows as nothing."""
    table = Table(title=title, title_justify="left")
    for name in columns:  # whatever has to be folded, an id is in one piece
        table.add_column(name, min_width=_ID_WIDTH if name == "id" else None)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell), overflow="fold") for cell in row))
    console().print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        say(f"{name.ljust(width)}  {value}")
