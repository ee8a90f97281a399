"""Pages (AIP-158): keyset lists with opaque tokens, bounded in rows and in bytes.

A token is sealed with AES-GCM under a subkey of the service: it says nothing, cannot be made by a
client, and opens only for the same caller, method and arguments. Which statement a page reads is each
store's matter.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message

from morag_meta.auth.generations import Keys, keys_of
from morag_meta.errors import Invalid, Reason, Violation
from morag_meta.rpc.call import Call

Row = Mapping[str, Any]
M = TypeVar("M", bound=Message)

DEFAULT_SIZE: Final = 50
LARGEST_SIZE: Final = 1000
MOST_BYTES: Final = 3_670_016
"""3.5 MiB: below gRPC's default limit of 4 MiB for a message."""
_CHUNK: Final = 200  # rows fetched at once, so that large rows are not all read for nothing
_NONCE: Final = 12


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """The messages of one page, and the token of the next one (empty at the end)."""

    items: list[M]
    next_token: str


class Pages:
    """Reads pages and seals their tokens."""

    def __init__(self, keys: bytes | Keys) -> None:
        """Take a key of 32 bytes, or what gives those in force."""
        self._keys = keys_of(keys)

    def page(
        self,
        call: Call,
        request: Any,
        *,
        keys: Sequence[str],
        fetch: Callable[[Row | None, int], Sequence[Row]],
        convert: Callable[[Row], M],
    ) -> Page[M]:
        """Read the page that ``request`` asks for by its ``page_size`` and ``page_token``.

        ``keys`` name the columns of the order, the last of them unique. ``fetch(after, limit)`` gives at
        most ``limit`` rows that follow the row with the values ``after``. At least one row is given, so
        that a page always gets on.

        Raises:
            Invalid: the token is damaged or foreign, or was made for other arguments.
        """
        binding = _binding(call, request)
        after = self._open(request.page_token, binding) if request.page_token else None
        size = min(request.page_size or DEFAULT_SIZE, LARGEST_SIZE)
        items: list[M] = []
        total = 0
        while len(items) < size:
            limit = min(_CHUNK, size - len(items))
            rows = fetch(after, limit + 1)
            for row in rows[:limit]:
                item = convert(row)
                total += item.ByteSize() + 8
                if items and total > MOST_BYTES:
                    return Page(items, self._seal(after, binding))
                items.append(item)
                after = {key: row[key] for key in keys}
            if len(rows) <= limit:
                return Page(items, "")
        return Page(items, self._seal(after, binding))

    def _seal(self, after: Row | None, binding: bytes) -> str:
        text = json.dumps([_plain(value) for value in (after or {}).items()]).encode()
        nonce = os.urandom(_NONCE)
        return base64.urlsafe_b64encode(
            nonce + _cipher(self._keys()[0]).encrypt(nonce, text, binding)
        ).decode()

    def _open(self, token: str, binding: bytes) -> Row:
        try:
            data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            data = b""
        text = self._decrypted(data, binding)
        # The last character has bits that say nothing: a token has one spelling, not several.
        if not text or base64.urlsafe_b64encode(data).decode() != token:
            description = "is damaged, or was made for another caller or other arguments"
            raise Invalid(
                f"page_token: {description}",
                reason=Reason.INVALID_PAGE_TOKEN,
                violations=[Violation("page_token", description)],
            )
        return {name: _rich(kind, value) for name, kind, value in json.loads(text)}

    def _decrypted(self, data: bytes, binding: bytes) -> bytes:
        for key in self._keys():
            with contextlib.suppress(InvalidTag, ValueError):
                return _cipher(key).decrypt(data[:_NONCE], data[_NONCE:], binding)
        return b""


@lru_cache(maxsize=8)
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


def _binding(call: Call, request: Message) -> bytes:
    """What a token holds for: the caller, their reach, the method, and all arguments but page and size."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("page_token")
    bare.ClearField("page_size")
    arguments = hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
    return f"{call.own}\n{call.reach}\n{call.method}\n{arguments}".encode()


def _plain(item: tuple[str, Any]) -> tuple[str, str, Any]:
    name, value = item
    if isinstance(value, dt.datetime):
        return name, "time", value.isoformat()
    return name, "value", value


def _rich(kind: str, value: Any) -> Any:
    return dt.datetime.fromisoformat(value) if kind == "time" else value
