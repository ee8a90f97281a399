"""How one setting is declared: its default, what it is, and what may be written. Pure.

Which settings there are, and how they are read, stands in ``settings.py`` and ``loading.py``.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BeforeValidator, Field

PREFIX: Final = "MORAG_"
"""What the variable of each setting begins with."""
HOW_TO_MAKE: Final = "make one with: openssl rand -base64 48"
"""What to write where a secret is missing."""


def any_case(*choices: str) -> BeforeValidator:
    """Take a choice in any letter case; anything else stays as it was written, to be told so."""

    def choose(value: Any) -> Any:
        text = value.strip().lower() if isinstance(value, str) else None
        return next((choice for choice in choices if choice.lower() == text), value)

    return BeforeValidator(choose)


def setting(default: Any, what: str, accepts: str, **limits: Any) -> Any:
    """Declare one setting: its default, what it is, and what may be written (shown as the fix)."""
    return Field(default, description=what, json_schema_extra={"accepts": accepts}, **limits)


def count(default: int, what: str, low: int, high: int) -> Any:
    """Declare a whole number."""
    return setting(default, what, f"a whole number from {low} to {high}", ge=low, le=high)


def seconds(default: float, what: str, low: float, high: float) -> Any:
    """Declare a time."""
    accepts = f"a number of seconds from {low:g} to {high:g}"
    return setting(default, what, accepts, ge=low, le=high, allow_inf_nan=False)


def rate(default: float, what: str) -> Any:
    """Declare a number of calls per second, 0 for no limit."""
    most = 100_000
    return setting(default, what, f"a number from 0 to {most}", ge=0, le=most, allow_inf_nan=False)


def switch(*, default: bool, what: str) -> Any:
    """Declare what is on or off."""
    return setting(default, what, "true or false")
