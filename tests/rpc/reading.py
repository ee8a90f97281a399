"""Another reading of the fields' rules, written from the words of the protos and not from the service's code.

What the service's validation finds must be what this finds.
"""

from __future__ import annotations

import math
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from moragmeta.v1 import options_pb2
from tests.rpc.messages import rules_of

Broken = Callable[[Any, Any], bool]


def broken_fields(message: Any, prefix: str = "", chosen: frozenset[str] | None = None) -> Iterator[str]:
    """Give the path of each value that breaks a rule; ``chosen`` are the fields that a mask names."""
    for field in message.DESCRIPTOR.fields:
        rules, path = rules_of(field), prefix + field.name
        looked_at = chosen is None or field.name in chosen or field.name in ("etag", "owner_id")
        if rules.output_only or not looked_at:
            continue
        if not _is_set(message, field):
            if rules.required and (chosen is None or field.name in chosen):
                yield path
            continue
        value = getattr(message, field.name)
        if not field.is_repeated:
            yield from _broken_value(message, field, value, path)
        elif rules.max_items and len(value) > rules.max_items:
            yield path
        if field.is_repeated and (not rules.max_items or len(value) <= rules.max_items):
            for position, item in enumerate(value):
                yield from _broken_value(message, field, item, f"{path}[{position}]")


def _broken_value(parent: Any, field: FieldDescriptor, value: Any, path: str) -> Iterator[str]:
    kind = field.message_type.full_name if field.message_type else ""
    if kind == "google.protobuf.Timestamp":
        in_range = -62_135_596_800 <= value.seconds < 253_402_300_800 and 0 <= value.nanos < 10**9
        yield from () if in_range else (path,)
    elif kind.startswith("moragmeta."):
        if "update_mask" in parent.DESCRIPTOR.fields_by_name:
            yield from _broken_identity(value, path)
            yield from broken_fields(value, f"{path}.", _chosen(value, parent.update_mask.paths))
        else:
            yield from broken_fields(value, f"{path}.")
    elif not kind and _BROKEN[field.type](value, (rules_of(field), field)):
        yield path


def _broken_identity(resource: Any, path: str) -> Iterator[str]:
    """An update names its resource by an id, although the server alone sets it."""
    field = resource.DESCRIPTOR.fields_by_name.get("id")
    if field is None:
        return
    needed = rules_of(field).format != options_pb2.FORMAT_UNSPECIFIED
    if _text_broken(resource.id, (rules_of(field), field)) or (needed and not resource.id):
        yield f"{path}.id"


def _chosen(resource: Message, paths: Any) -> frozenset[str]:
    if list(paths) == []:
        return frozenset(field.name for field in resource.DESCRIPTOR.fields if _is_set(resource, field))
    every = resource.DESCRIPTOR.fields_by_name
    return frozenset(every) if "*" in paths else frozenset(paths)


def _is_set(message: Message, field: Any) -> bool:
    return any(field.name == one.name for one, _ in message.ListFields())


def _text_broken(text: str, declared: Any) -> bool:
    rules, _ = declared
    if "\0" in text:
        return True
    if text == "":
        return False
    if rules.max_length and len(text) > rules.max_length:
        return True
    return len(text) < rules.min_length or not _FORMATS[rules.format](text)


def _number_broken(number: float, declared: Any) -> bool:
    rules, _ = declared
    if math.isnan(number) or math.isinf(number):
        return True
    low = rules.min if rules.HasField("min") else -math.inf
    return not low <= number <= (rules.max if rules.HasField("max") else math.inf)


def _enum_broken(number: int, declared: Any) -> bool:
    _, field = declared
    return all(number != value.number for value in field.enum_type.values)


_BROKEN: Final[dict[int, Broken]] = {
    FieldDescriptor.TYPE_STRING: _text_broken,
    FieldDescriptor.TYPE_ENUM: _enum_broken,
    FieldDescriptor.TYPE_INT32: _number_broken,
    FieldDescriptor.TYPE_INT64: _number_broken,
    FieldDescriptor.TYPE_DOUBLE: _number_broken,
    FieldDescriptor.TYPE_BOOL: lambda *_: False,
    FieldDescriptor.TYPE_BYTES: lambda value, field: len(value) > field[0].max_length > 0,
}


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _is_email(text: str) -> bool:
    name, at, host = text.strip().partition("@")
    bare = not any(c.isspace() or ord(c) < 0x20 or ord(c) == 0x7F for c in name + host)
    return bool(name and at and host) and "@" not in host and bare


def _is_name(text: str) -> bool:
    return not text.isspace() and not any(map(_is_control, text))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


_FORMATS: Final[dict[int, Callable[[str], bool]]] = {
    options_pb2.FORMAT_UNSPECIFIED: lambda _: True,
    options_pb2.FORMAT_UUID: _is_uuid,
    options_pb2.FORMAT_OWNER: lambda text: text == "-" or _is_uuid(text),
    options_pb2.FORMAT_USER: lambda text: text == "me" or _is_uuid(text),
    options_pb2.FORMAT_EMAIL: _is_email,
    options_pb2.FORMAT_TOKEN: lambda text: all(0x21 <= ord(character) <= 0x7E for character in text),
    options_pb2.FORMAT_NAME: _is_name,
}
