"""Free-form values: ``google.protobuf.Struct`` to the JSON that is stored, and back.

Every feature that takes a Struct (a server's config, a document's metadata, a job's parameters, a
user's preferences) checks it here and nowhere else. What does not live here: how JSON is kept in a
column (``db/types.py``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct, Value

from morag_meta.errors import Invalid, invalid

MAX_BYTES: Final = 65_536
MAX_DEPTH: Final = 16

# A double holds every whole number up to here exactly; such numbers are stored without a fraction.
_EXACT: Final = 2.0**53
# No JSON is shorter than an eighth of the Struct it says: the worst is a one-digit number in a list.
_WIRE_RATIO: Final = 8


def struct_to_json(
    struct: Struct, field: str, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH
) -> dict[str, Any]:
    """Give the JSON object of a Struct, with whole numbers as integers.

    ``max_bytes`` bounds its compact JSON in UTF-8, in bytes. ``max_depth`` bounds its levels: the Struct
    itself is the first, and each object or list inside another is one more.

    Raises:
        Invalid: ``field`` is too large or too deep, or holds a number that is not finite, a NUL
            character in a text or a key, or a value without a kind.
    """
    reader = _Reader(field, max_bytes, max_depth)
    if struct.ByteSize() > max_bytes * _WIRE_RATIO:
        raise reader.too_large()
    converted = reader.read_object(struct, 1)
    if len(json.dumps(converted, ensure_ascii=False, separators=(",", ":")).encode()) > max_bytes:
        raise reader.too_large()
    return converted


def json_to_struct(value: Mapping[str, Any] | None) -> Struct:
    """Give the Struct of a stored JSON object; None gives an empty one."""
    struct = Struct()
    if value:
        struct.update(value)
    return struct


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one Struct under its limits; ``level`` is where in it a value stands, from 1."""

    field: str
    max_bytes: int
    max_depth: int

    def read_object(self, struct: Struct, level: int) -> dict[str, Any]:
        self._check(level)
        return {self._text(key): self._value(value, level) for key, value in struct.fields.items()}

    def too_large(self) -> Invalid:
        return invalid(self.field, f"is larger than {self.max_bytes} bytes as JSON")

    def _value(self, value: Value, level: int) -> Any:
        match value.WhichOneof("kind"):
            case "string_value":
                return self._text(value.string_value)
            case "number_value":
                return self._number(value.number_value)
            case "bool_value":
                return value.bool_value
            case "null_value":
                return None
            case "struct_value":
                return self.read_object(value.struct_value, level + 1)
            case "list_value":
                self._check(level + 1)
                return [self._value(item, level + 1) for item in value.list_value.values]
            case _:
                raise invalid(self.field, "holds a value of no kind")

    def _check(self, level: int) -> None:
        if level > self.max_depth:
            raise invalid(self.field, f"has more than {self.max_depth} levels of objects and lists")

    def _text(self, text: str) -> str:
        if "\x00" in text:
            raise invalid(self.field, "holds a NUL character")
        return text

    def _number(self, number: float) -> float:
        if not math.isfinite(number):
            raise invalid(self.field, "holds a number that is not finite")
        negative_zero = number == 0 and math.copysign(1.0, number) < 0
        if number.is_integer() and abs(number) <= _EXACT and not negative_zero:
            return int(number)
        return number
