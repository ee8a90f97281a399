"""The options that several commands share, and the settings that follow from them."""

from __future__ import annotations

import contextvars
import enum
from typing import Annotated, Any

import typer

from morag_meta import logs
from morag_meta.cli.output import warn
from morag_meta.config.loading import load
from morag_meta.config.settings import Settings
from morag_meta.config.variables import unknown_variables

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="The database, instead of MORAG_DATABASE_URL: sqlite:///FILE, postgresql://…, mariadb://…",
        show_default=False,
    ),
]


class Format(enum.StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="A table for people, or JSON for programs.")]


_given: contextvars.ContextVar[str | None] = contextvars.ContextVar("database_url", default=None)


def remember(database_url: str | None) -> None:
    """Keep the database URL that was given before the command."""
    _given.set(database_url)


def read_settings(database_url: str | None = None, **overrides: Any) -> Settings:
    """Read the settings, with what the command line says over the environment, and warn of misspellings.

    Raises:
        ConfigurationError: a value is not accepted.
    """
    for warning in unknown_variables():
        warn(warning)
    settings = load(database_url=database_url or _given.get(), **overrides)
    # A command speaks for itself: libraries are heard when something is wrong, unless DEBUG asks for more.
    logs.configure("DEBUG" if settings.log_level == "DEBUG" else "WARNING", settings.log_format)
    return settings
