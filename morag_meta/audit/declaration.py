"""What a method declares of the audit: read from the proto's ``audit`` option, once for each method.

It also reads what a declaration names: ids, owners, and the fields that a request set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from moragmeta.v1 import options_pb2

_DEEPEST: Final = 3
_MOST_FIELDS: Final = 64
_NUMBERS: Final = frozenset(
    {
        FieldDescriptor.CPPTYPE_BOOL,
        FieldDescriptor.CPPTYPE_DOUBLE,
        FieldDescriptor.CPPTYPE_FLOAT,
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
    }
)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the audit keeps of a method's calls; see the message ``Audit`` of the protos."""

    event: str
    target: str
    made: str
    recorded: bool
    """Whether calls that succeed are kept."""


def declaration_of(method: MethodDescriptor) -> Declaration | None:
    """Read what a method declares, or None."""
    options = method.GetOptions()
    if not options.HasExtension(options_pb2.audit):
        return None
    declared = options.Extensions[options_pb2.audit]
    return Declaration(declared.event, declared.target, declared.made, recorded=not declared.unrecorded)


def value_at(message: Any, path: str) -> str:
    """Give the text at a path of a message, such as ``document.id``, as it was sent; empty for no path."""
    if not path:
        return ""
    for name in path.split("."):
        message = getattr(message, name)
    return str(message)


def owner_in(response: Any) -> str:
    """Give the ``owner_id`` that a response holds, itself or in its first message; empty for none."""
    path = _owner_path(response.DESCRIPTOR)
    return value_at(response, path) if path else ""


def fields_of(request: Message) -> dict[str, Any]:
    """Give the fields that a request set, by their paths, without redacted ones.

    Values are kept of numbers, enums (by name) and booleans; of a list its length; of all else nothing.
    """
    found: dict[str, Any] = {}
    for path, value in _walk(request, "", _DEEPEST):
        if len(found) == _MOST_FIELDS:
            break
        found[path] = value
    return found


def _walk(message: Message, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for field, value in message.ListFields():
        if _is_redacted(field):
            continue
        path = prefix + field.name
        if field.is_repeated:
            yield path, len(value)
        elif field.cpp_type in _NUMBERS:
            yield path, value
        elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            yield path, _name_of(field, value)
        elif depth > 1 and _is_ours(field.message_type):
            yield from _walk(value, f"{path}.", depth - 1)
        else:
            yield path, None


@lru_cache(maxsize=1024)
def _is_redacted(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[options_pb2.redacted])


def _name_of(field: FieldDescriptor, number: int) -> str | int:
    known = field.enum_type.values_by_number.get(number) if field.enum_type is not None else None
    return number if known is None else str(known.name)


def _is_ours(message: Descriptor | None) -> bool:
    return message is not None and bool(message.file.package == options_pb2.DESCRIPTOR.package)


@lru_cache(maxsize=256)
def _owner_path(message: Descriptor) -> str:
    if "owner_id" in message.fields_by_name:
        return "owner_id"
    for field in message.fields:
        inner = field.message_type
        if inner is not None and not field.is_repeated and "owner_id" in inner.fields_by_name:
            return f"{field.name}.owner_id"
    return ""
