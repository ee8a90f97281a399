"""Resume tokens: where a stream over many jobs goes on, sealed for one store, one reach and one filter.

A token is the position with an HMAC under a subkey of the service. It holds nothing that is secret, and
nobody else can make one; what reads at a position stands in ``watch_jobs.py``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import struct
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from morag_meta.auth.generations import Keys, keys_of
from morag_meta.errors import Invalid, Reason, Violation
from morag_meta.jobs.listing import Filter

MOST_SEEN: Final = 25
"""How many jobs a token can name; with them it stays below 1000 characters."""
_MAC: Final = 18
_PLACE: Final = struct.Struct(">BQ")
_SEEN: Final = struct.Struct(">16sQ")
_BEGIN, _GO_ON = 0, 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream stands: behind a position of the log, or, as None, before its snapshot's end.

    ``seen`` gives jobs whose snapshot was newer than the position, with the number of the last event in it.
    """

    position: int | None
    seen: Mapping[str, int] = field(default_factory=dict)


class Seal:
    """Makes and opens the tokens of one store, reach and filter."""

    __slots__ = ("_bound", "_keys")

    def __init__(self, keys: bytes | Keys, store_id: str, chosen: Filter) -> None:
        """Take the service's key for such tokens, or what gives those in force.

        The order within a filter's lists does not matter.
        """
        parts = {
            name: sorted(value) if isinstance(value, tuple) else value
            for name, value in asdict(chosen).items()
        }
        self._keys = keys_of(keys)
        self._bound = hashlib.sha256(json.dumps([store_id, parts], sort_keys=True).encode()).digest()

    def make(self, position: int, seen: Mapping[str, int] | None = None) -> str:
        """Give the token of a place in the log."""
        data = _PLACE.pack(_GO_ON, position)
        for job_id, number in (seen or {}).items():
            data += _SEEN.pack(uuid.UUID(job_id).bytes, number)
        return self._sealed(data)

    def begin(self) -> str:
        """Give the token that means: from the start, snapshot included."""
        return self._sealed(_PLACE.pack(_BEGIN, 0))

    def open(self, token: str) -> Place:
        """Give the place that a token says.

        Raises:
            Invalid: the token is damaged, or of another store, reach or filter (INVALID_RESUME_TOKEN).
        """
        try:
            whole = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise _invalid() from None
        data = whole[_MAC:]
        # The last character has bits that say nothing: a token has one spelling, not several.
        if not any(hmac.compare_digest(self._sealed_by(key, data), token) for key in self._keys()):
            raise _invalid()
        kind, position = _PLACE.unpack_from(data)
        seen = {str(uuid.UUID(bytes=job)): number for job, number in _SEEN.iter_unpack(data[_PLACE.size :])}
        return Place(None if kind == _BEGIN else position, seen)

    def _sealed(self, data: bytes) -> str:
        return self._sealed_by(self._keys()[0], data)

    def _sealed_by(self, key: bytes, data: bytes) -> str:
        mac = hmac.digest(key, self._bound + data, hashlib.sha256)[:_MAC]
        return base64.urlsafe_b64encode(mac + data).decode()


def _invalid() -> Invalid:
    description = "is damaged, or was made for another store, another caller or another filter"
    return Invalid(
        f"resume_token: {description}",
        reason=Reason.INVALID_RESUME_TOKEN,
        violations=[Violation("resume_token", description)],
    )
