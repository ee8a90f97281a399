"""How settings are read, and all that is wrong with them told at once.

What may be set stands in ``settings.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from morag_meta.config.contradictions import contradictions, missing_secrets
from morag_meta.config.error import ConfigurationError
from morag_meta.config.setting import PREFIX
from morag_meta.config.settings import ENV_FILE, Settings


def load(**overrides: Any) -> Settings:
    """Read the environment and ``.env``; an override that is not None, an option, wins over both.

    Raises:
        ConfigurationError: one line for each value that is not accepted.

    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise ConfigurationError(*(_problem(e, given) for e in error.errors(include_url=False))) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{ENV_FILE} cannot be read: {error}") from None
    problems = list(contradictions(settings))
    if problems:
        raise ConfigurationError(*problems)
    return settings


def _problem(error: ErrorDetails, options: Mapping[str, Any]) -> str:
    """Return one line: the variable or option, its value unless that is a secret, and what to write."""
    name = str(error["loc"][0])
    said = f"--{name.replace('_', '-')}" if name in options else f"{PREFIX}{name.upper()}"
    field = Settings.model_fields[name]
    extra = field.json_schema_extra
    fix = extra["accepts"] if isinstance(extra, dict) else ""
    if "Secret" in str(field.annotation):
        reason = error["msg"] if error["type"] == "secret" else "it cannot be read"
        return f"{said} is not accepted, {reason}: {fix}"
    if error["type"] == "url":
        return f"{said} is not accepted: {error['msg']}"
    return f"{said} is {str(error['input'])!r}: give {fix}"


def require_secrets(settings: Settings) -> Settings:
    """Return the settings if they hold all the secrets that serving needs.

    On SQLite a missing one is made beside the file at first start, so nothing is required.

    Raises:
        ConfigurationError: a secret is missing and cannot be made here.

    """
    problems = missing_secrets(settings)
    if problems:
        raise ConfigurationError(*problems)
    return settings
