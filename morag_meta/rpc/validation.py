"""The fields' rules of the protos, enforced before a method runs.

The rules are read once per message type and compiled to checks. What only one feature can judge (a
Struct's depth, a transition) stays in that feature's ``rules.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from morag_meta import forms
from morag_meta.errors import Invalid, Reason, Violation
from moragmeta.v1 import options_pb2

Found = list[Violation]
Check = Callable[[Any, str, Found], None]

_LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
_FIRST_SECOND: Final = -62_135_596_800  # 0001-01-01T00:00:00Z
_CARRIED: Final = ("etag", "owner_id")  # what an update of a resource reads although it does not write it
_MOST: Final = 50  # violations gathered before the rest is not looked at


def validate(request: Message) -> None:
    """Check a request against the rules of its fields, and clear those that no rule is for.

    Those are what only the server sets, and what an update carries outside its mask. Nobody has judged what
    they hold, and so no method, fingerprint or row of the audit meets them.

    Raises:
        Invalid: naming every field that breaks its rule, with the limit.
    """
    found: Found = []
    _check_message(request, "", found, None)
    if found:
        first = found[0]
        raise Invalid(f"{first.field}: {first.description}", reason=Reason.INVALID_FIELD, violations=found)


def _check_message(message: Message, path: str, found: Found, written: frozenset[str] | None) -> None:
    """Check one message; ``written`` names the fields that a mask has it write, None means all."""
    plan = _plan(message.DESCRIPTOR)
    set_fields = {field.name: value for field, value in message.ListFields()}
    for name in plan.required:
        if name not in set_fields and (written is None or name in written):
            found.append(Violation(path + name, "is required"))
    for name, value in set_fields.items():
        if len(found) >= _MOST:
            return
        if name in plan.ignored:
            if written is None or name != "id":  # which says of an update what it is of
                message.ClearField(name)
            continue
        if written is not None and name not in written and name not in _CARRIED:
            message.ClearField(name)
            continue
        check = plan.checks.get(name)
        if check is not None:
            check(value, path + name, found)
        if name in plan.messages:
            _check_nested(message, name, value, path, found)


def _check_nested(parent: Message, name: str, value: Any, path: str, found: Found) -> None:
    written = None
    if "update_mask" in parent.DESCRIPTOR.fields_by_name and name != "update_mask":
        written = _written(value, parent.update_mask.paths)  # type: ignore[attr-defined]
        _check_identity(value, f"{path}{name}.", found)
    if parent.DESCRIPTOR.fields_by_name[name].is_repeated:
        for index, item in enumerate(value):
            _check_message(item, f"{path}{name}[{index}].", found, None)
    else:
        _check_message(value, f"{path}{name}.", found, written)


def _check_identity(resource: Message, path: str, found: Found) -> None:
    """Check the id of a resource in an update: there the output-only field says which one to change.

    One without a form may be left out, and then means the caller.
    """
    field = resource.DESCRIPTOR.fields_by_name.get("id")
    if field is None:
        return
    id: str = resource.id  # type: ignore[attr-defined]
    rules = field.GetOptions().Extensions[options_pb2.rules]
    if id:
        _check_text(id, rules, f"{path}id", found)
    elif rules.format:
        found.append(Violation(f"{path}id", "is required"))


def _written(resource: Message, paths: Any) -> frozenset[str]:
    if not paths:
        return frozenset(field.name for field, _ in resource.ListFields())
    if "*" in paths:
        return frozenset(resource.DESCRIPTOR.fields_by_name)
    return frozenset(paths)


class _Plan:
    """What to check of one message type."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.required: list[str] = []
        self.ignored: set[str] = set()
        self.messages: set[str] = set()
        self.checks: dict[str, Check] = {}
        for field in descriptor.fields:
            rules = field.GetOptions().Extensions[options_pb2.rules]
            if rules.output_only:
                self.ignored.add(field.name)
                continue
            if rules.required:
                self.required.append(field.name)
            if field.message_type is not None and field.message_type.full_name.startswith("moragmeta."):
                self.messages.add(field.name)
            check = _check_of(field, rules)
            if check is not None:
                self.checks[field.name] = check


@cache
def _plan(descriptor: Descriptor) -> _Plan:
    return _Plan(descriptor)


def _check_of(field: FieldDescriptor, rules: options_pb2.FieldRules) -> Check | None:
    single = _single_check(field, rules)
    if not field.is_repeated:
        return single

    def each(values: Any, path: str, found: Found) -> None:
        if rules.max_items and len(values) > rules.max_items:
            found.append(Violation(path, f"has {len(values)} items; at most {rules.max_items} are allowed"))
        elif single is not None:
            for index, value in enumerate(values):
                single(value, f"{path}[{index}]", found)

    return each if single is not None or rules.max_items else None


def _single_check(field: FieldDescriptor, rules: options_pb2.FieldRules) -> Check | None:
    if field.type == FieldDescriptor.TYPE_STRING:
        return lambda value, path, found: _check_text(value, rules, path, found)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value, path, found: _check_bytes(value, rules, path, found)
    if field.enum_type is not None:
        numbers = frozenset(field.enum_type.values_by_number)
        return lambda value, path, found: (
            None if value in numbers else found.append(Violation(path, f"{value} is not a known value"))
        )
    if field.message_type is not None:
        return _check_timestamp if field.message_type.full_name == Timestamp.DESCRIPTOR.full_name else None
    if field.type == FieldDescriptor.TYPE_BOOL:
        return None
    return lambda value, path, found: _check_number(value, rules, path, found)


def _check_text(value: str, rules: options_pb2.FieldRules, path: str, found: Found) -> None:
    if "\x00" in value:
        found.append(Violation(path, "must not contain a NUL character"))
    elif rules.max_length and len(value) > rules.max_length:
        found.append(Violation(path, f"has {len(value)} characters; at most {rules.max_length} are allowed"))
    elif value and len(value) < rules.min_length:
        found.append(Violation(path, f"must have at least {rules.min_length} characters"))
    elif value and rules.format:
        wrong = _FORMATS[rules.format](value)
        if wrong:
            found.append(Violation(path, wrong))


def _check_bytes(value: bytes, rules: options_pb2.FieldRules, path: str, found: Found) -> None:
    if rules.max_length and len(value) > rules.max_length:
        found.append(Violation(path, f"has {len(value)} bytes; at most {rules.max_length} are allowed"))


def _check_number(value: float, rules: options_pb2.FieldRules, path: str, found: Found) -> None:
    if not math.isfinite(value):
        found.append(Violation(path, "must be a finite number"))
    elif rules.HasField("min") and value < rules.min:
        found.append(Violation(path, f"must be at least {rules.min:g}"))
    elif rules.HasField("max") and value > rules.max:
        found.append(Violation(path, f"must be at most {rules.max:.17g}"))


def _check_timestamp(value: Timestamp, path: str, found: Found) -> None:
    if not _FIRST_SECOND <= value.seconds <= _LAST_SECOND or not 0 <= value.nanos < 1_000_000_000:
        found.append(Violation(path, "must be a time from year 1 to 9999"))


_FORMATS: Final[dict[int, Callable[[str], str]]] = {
    options_pb2.FORMAT_UUID: forms.uuid,
    options_pb2.FORMAT_OWNER: lambda text: forms.uuid_or("-", text, "everyone"),
    options_pb2.FORMAT_USER: lambda text: forms.uuid_or("me", text, "the caller"),
    options_pb2.FORMAT_EMAIL: forms.email,
    options_pb2.FORMAT_TOKEN: forms.token,
    options_pb2.FORMAT_NAME: forms.name,
}
