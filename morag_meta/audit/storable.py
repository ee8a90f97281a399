"""What an event keeps of whatever it is given, so that each database takes it.

Refused calls are kept although nobody has judged their fields. The columns decide here, each by its type, so
that what is kept one day beside the rest needs no thought of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from morag_meta.db.types import Json, UtcDateTime

_UNKEPT: Final = re.compile("[\0\ud800-\udfff]")
_INSTEAD: Final = "\ufffd"  # the replacement character
_MOST_BITS: Final = 64
_LARGEST: Final = 2**31 - 1


def keeper_of(column: sa.Column[Any]) -> Callable[[Any], Any]:
    """Give what makes any value of its kind one that a column takes.

    Raises:
        TypeError: nothing is decided here for columns of that type.
    """
    kind = column.type
    if isinstance(kind, Json):
        return storable_fields
    if isinstance(kind, sa.String) and kind.length:
        return _text_keeper(kind.length)
    if type(kind) is sa.Integer:
        return lambda number: min(number, _LARGEST)
    if isinstance(kind, UtcDateTime):
        return lambda time: time  # no caller's
    raise TypeError(f"it is not said what {column} keeps of a value")


def storable_text(text: str, most: int | None = None) -> str:
    """Give at most so many characters of a text, those replaced that a database or a message refuses."""
    kept = text[:most]
    return kept if kept.isprintable() else _UNKEPT.sub(_INSTEAD, kept)


def storable_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give fields with finite numbers, booleans and clean texts; of any other value nothing but its path."""
    return {storable_text(path): _value(value) for path, value in fields.items()}


def _text_keeper(most: int) -> Callable[[str], str]:
    def keep(text: str) -> str:
        # Nearly every text of nearly every event is fit already, and each change waits for a dozen of them.
        return text if len(text) <= most and text.isprintable() else storable_text(text, most)

    return keep


def _value(value: Any) -> Any:
    if isinstance(value, int):
        return value if value.bit_length() <= _MOST_BITS else None
    if isinstance(value, str):
        return storable_text(value)
    return value if isinstance(value, float) and math.isfinite(value) else None
