"""From bytes to a request, where bytes that are no message are told as what they are.

gRPC's own deserializers answer them with INTERNAL. What a request may hold is in ``rpc/validation.py``.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from morag_meta.errors import Invalid, Reason

Request = TypeVar("Request", bound=Message)


def decode(kind: type[Request], data: bytes) -> Request:
    """Read a request of a kind.

    Raises:
        Invalid: UNDECODABLE_REQUEST; the bytes are no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        name = kind.DESCRIPTOR.full_name
        raise Invalid(f"the request is not a {name}", reason=Reason.UNDECODABLE_REQUEST) from None
