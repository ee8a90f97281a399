"""Update masks (AIP-134): which fields of a resource an update writes.

What may stand in a mask is declared by the fields' rules in the protos.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from morag_meta.errors import Invalid, Reason, Violation
from moragmeta.v1 import options_pb2

# Fields of a resource that an update carries but never writes.
_CARRIED: Final = frozenset({"id", "etag"})


def masked(resource: Message, mask: FieldMask, *, path: str = "update_mask") -> list[str]:
    """Give the names of the fields to write, in the order of the mask.

    An empty mask means every populated field that can be written, ``*`` all of them; a named field that
    is not set is to be cleared.

    Raises:
        Invalid: the mask names a field that does not exist or cannot be written (INVALID_UPDATE_MASK).
    """
    fields = resource.DESCRIPTOR.fields_by_name
    writable = {name for name, field in fields.items() if name not in _CARRIED and _is_writable(field)}
    if not mask.paths:
        return [field.name for field, _ in resource.ListFields() if field.name in writable]
    if "*" in mask.paths:
        if len(mask.paths) > 1:
            raise _refused(path, "'*' stands alone")
        return [name for name in fields if name in writable]
    names = list(dict.fromkeys(mask.paths))
    for name in names:
        if name not in fields:
            raise _refused(path, f"{name[:100]!r} is not a field of {resource.DESCRIPTOR.name}")
        if name not in writable:
            raise _refused(path, f"{name!r} cannot be changed")
    return names


def _is_writable(field: Any) -> bool:
    rules = field.GetOptions().Extensions[options_pb2.rules]
    return not (rules.output_only or rules.immutable)


def _refused(path: str, description: str) -> Invalid:
    return Invalid(
        f"{path}: {description}",
        reason=Reason.INVALID_UPDATE_MASK,
        violations=[Violation(path, description)],
    )
