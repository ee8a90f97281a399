"""The secrets that this process made or saw, and a quick search for any of them in what is not to hold one.

A search looks at every eighth byte alone: of each form of a secret all pieces of eight bytes that begin in
its first eight are known, and one of them stands on such a place. What is told of a find is never the secret.
"""

from __future__ import annotations

import base64
import hashlib
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_PIECE: Final = 8
_LEAST_BYTES: Final = 8
_LEAST_VARIETY: Final = 5
"""Different characters of a secret that is searched for: ``p`` or ``xxxxxxxx`` stands everywhere."""


class Leaked(AssertionError):
    """A secret stands where none is to be."""


@dataclass(frozen=True, slots=True)
class Form:
    """A secret as it may have been written."""

    what: str
    """Whose field it is."""
    how: str
    data: bytes

    def __str__(self) -> str:
        """Name it without saying it."""
        digest = hashlib.sha256(self.data).hexdigest()[:8]
        return f"{self.what}, {self.how}, {len(self.data)} bytes, SHA-256 {digest}…"


def forms_of(what: str, secret: bytes) -> Iterator[Form]:
    """Give the ways in which a secret may have been written."""
    yield Form(what, "plain", secret)
    yield Form(what, "hexadecimal", secret.hex().encode())
    yield Form(what, "hexadecimal in capitals", secret.hex().upper().encode())
    quoted = urllib.parse.quote(secret, safe="").encode()
    if quoted != secret:
        yield Form(what, "URL-encoded", quoted)
    for shift in range(3):  # what base64 makes of it depends on where it begins
        coded = base64.b64encode(b"\0" * shift + secret)
        padding = coded.count(b"=")
        core = coded[_FOREIGN[shift] : len(coded) - padding - (padding > 0)]
        yield Form(what, "base64", core)
        if core.translate(_URL_SAFE) != core:
            yield Form(what, "base64url", core.translate(_URL_SAFE))


_FOREIGN: Final = (0, 2, 3)
"""The first characters that depend on what stands before."""
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class Collected:
    """Secrets, and a search for them."""

    def __init__(self) -> None:
        """Begin without any."""
        self._known: set[str | bytes] = set()
        self._pieces: dict[bytes, list[Form]] = {}
        self._short: list[Form] = []
        self.paused = False

    def __len__(self) -> int:
        """Count the secrets."""
        return len(self._known)

    def add(self, what: str, secret: str | bytes) -> None:
        """Keep a secret, unless it is too plain to be told from anything else."""
        if self.paused or secret in self._known:
            return
        data = secret.encode(errors="surrogatepass") if isinstance(secret, str) else secret
        if len(data) < _LEAST_BYTES or len(set(data)) < _LEAST_VARIETY:
            return
        self._known.add(secret)
        for form in forms_of(what, data):
            if len(form.data) < 2 * _PIECE - 1:
                self._short.append(form)
                continue
            for start in range(_PIECE):
                self._pieces.setdefault(form.data[start : start + _PIECE], []).append(form)

    def found_in(self, text: bytes) -> list[Form]:
        """Give the secrets that stand in a text."""
        pieces = self._pieces
        found = [form for form in self._short if form.data in text]
        if pieces:
            places = range(0, len(text) - _PIECE + 1, _PIECE)
            hits = {text[at : at + _PIECE] for at in places} & pieces.keys()
            found += {form for piece in hits for form in pieces[piece] if form.data in text}
        return found


SECRETS: Final = Collected()
"""What is to stand nowhere: no database, log, error or audit."""
LEASES: Final = Collected()
"""Tokens of leases: the service keeps those of running jobs as they are, but tells nobody else of them."""


def check(where: str, text: bytes | str, *, leases: bool = True) -> None:
    """Search a text for every secret; for tokens of leases too, unless it may hold them.

    Raises:
        Leaked: there is one, named and not said.
    """
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    found = SECRETS.found_in(data) + (LEASES.found_in(data) if leases else [])
    if found:
        lines = "\n".join(f"  {form}" for form in sorted(found, key=str)[:20])
        raise Leaked(f"{len(found)} secrets stand in {where}:\n{lines}")
