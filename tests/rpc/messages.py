"""Messages of any type for property tests, with values that are good, at a limit, or just beyond it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from morag_meta.rpc.access import SERVICES, service
from moragmeta.v1 import options_pb2

METHODS: Final = {method.full_name: method for name in SERVICES for method in service(name).methods}
"""Every method's descriptor by its full name."""

_WORDS: Final = (
    *("", "a", "ab", " a", "a ", "a b", "\t", "\x00", "a\x00b", "é", "\U0001f600", "\u2028", "\x7f", "\x85"),
    *("-", "me", "a@b", "a@b@c", " a@b ", "a b@c", "@", "ab@", "%", "_", "'", "\\", "create_time desc", "*"),
    *("jobs:read", '"1"', "0" * 36, str(uuid.UUID(int=7)), str(uuid.UUID(int=7 << 90)).upper()),
)
_NUMBERS: Final = (0, 1, 2, -1, 100, 101, 65535, 65536, 2**31 - 1, -(2**31))
_LARGE: Final = (*_NUMBERS, 2**53 - 1, 2**53, 2**63 - 1, -(2**63))
_FLOATS: Final = (0.0, 0.5, 1.0, 1.0000001, -0.1, math.nan, math.inf, -math.inf, 1e308)
_SECONDS: Final = (0, 1, -62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800, 2**62, -(2**62))
_NANOS: Final = (0, 1, 999_999_999, 1_000_000_000, -1)


def rules_of(field: FieldDescriptor) -> Any:
    """Give the rules that the proto declares for a field."""
    return field.GetOptions().Extensions[options_pb2.rules]


def request_type(method: Any) -> type[Message]:
    """Give the class of a method's requests."""
    return GetMessageClass(method.input_type)


def messages(descriptor: Descriptor, ids: Sequence[str] = ()) -> st.SearchStrategy[Any]:
    """Make messages of a type, each field set or not; texts are often one of ``ids``.

    What only the server sets is made as well, since nothing keeps a client from sending it.
    """
    kind = GetMessageClass(descriptor)
    fields = {field.name: st.none() | _values(field, ids) for field in descriptor.fields}
    if "update_mask" in fields:
        resource: Any = descriptor.fields[0].message_type
        paths = st.sampled_from([*resource.fields_by_name, "*", "unknown", "name.first"])
        fields["update_mask"] = st.none() | st.builds(FieldMask, paths=st.lists(paths, max_size=3))
    return st.fixed_dictionaries(fields).map(lambda given: kind(**given))


def _values(field: FieldDescriptor, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    one = _one(field, ids)
    if not field.is_repeated:
        return one
    most = rules_of(field).max_items
    sizes = st.lists(one, max_size=3)
    # Only where it is cheap: a hundred whole documents more say nothing else than six servers' kinds.
    return sizes | st.lists(one, min_size=most, max_size=most + 1) if 0 < most <= 20 else sizes


def _one(field: Any, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return _texts(rules_of(field), ids)
    if field.type == FieldDescriptor.TYPE_BYTES:
        most = rules_of(field).max_length
        return st.sampled_from([b"", b"\x00\xff", bytes(most), bytes(most + 1)])
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([*field.enum_type.values_by_number, 99, -1])
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        make = _WELL_KNOWN.get(field.message_type.full_name)
        return make() if make else messages(field.message_type, ids)
    return _SCALARS[field.type]


_SCALARS: Final[dict[int, st.SearchStrategy[Any]]] = {
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from(_FLOATS),
    FieldDescriptor.TYPE_INT32: st.sampled_from(_NUMBERS),
    FieldDescriptor.TYPE_INT64: st.sampled_from(_LARGE),
}


def _texts(rules: Any, ids: Sequence[str]) -> st.SearchStrategy[str]:
    edges = [size for limit in (rules.min_length, rules.max_length) if limit for size in (limit, limit + 1)]
    long = [character * size for size in edges for character in ("x", "\U0001f600")]
    if rules.min_length:
        long.append("x" * (rules.min_length - 1))
    return st.sampled_from([*_WORDS, *long]) | (st.sampled_from(list(ids)) if ids else st.nothing())


def _structs() -> st.SearchStrategy[Struct]:
    leaves = st.none() | st.booleans() | st.sampled_from(_FLOATS) | st.sampled_from(_WORDS)
    keys = st.sampled_from(_WORDS)
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
        max_leaves=5,
    )

    def make(value: dict[str, Any]) -> Struct:
        struct = Struct()
        struct.update(value)
        return struct

    return st.dictionaries(keys, values, max_size=2).map(make)


def _times() -> st.SearchStrategy[Timestamp]:
    return st.builds(Timestamp, seconds=st.sampled_from(_SECONDS), nanos=st.sampled_from(_NANOS))


_WELL_KNOWN: Final = {"google.protobuf.Timestamp": _times, "google.protobuf.Struct": _structs}
