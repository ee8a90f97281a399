"""What stands in the files that hold secrets, and the steps in which one generation follows another. Pure.

The file of the root secret has one line, the secret, as it could stand in MORAG_SECRET_KEY; while it is
changed a second line holds the other one, which is accepted: behind ``next``, or behind ``previous`` and the
time since when it makes nothing. The file of the credential keys is JSON, with the id of the ``active`` one
and, meanwhile, of the ``next`` or ``previous`` one. Reading and writing is ``auth/private_file.py``'s.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import json
import secrets
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from morag_meta.auth import private_file
from morag_meta.auth.credentials import KEY_BYTES, CredentialRing, decoded
from morag_meta.auth.secret import RootSecret
from morag_meta.config.error import ConfigurationError
from morag_meta.strength import weakness

ROOT: Final = "the secret key"
RING: Final = "the credential keys"


class Phase(enum.Enum):
    """How far a secret has been changed."""

    SETTLED = ""
    """There is one generation."""
    NEXT = "next"
    """The next one is accepted, and makes nothing yet."""
    PREVIOUS = "previous"
    """The next one makes, and the one before is still accepted."""


@dataclass(frozen=True, slots=True)
class RootFile:
    """The generations of the root secret: the one that makes, and another while it is changed."""

    signing: str = field(repr=False)
    other: str = field(default="", repr=False)
    phase: Phase = Phase.SETTLED
    since: dt.datetime | None = None
    """When the next one began to make."""

    @classmethod
    def fresh(cls) -> Self:
        """Make a first secret."""
        return cls(secrets.token_urlsafe(48))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the file's text.

        Raises:
            ValueError: it is none.
        """
        first, *more = text.split("\n")
        words = more[0].split() if more else []
        if any(line.strip() for line in more[1:]) or len(words) == 1:
            raise ValueError("it has more than it may")
        file = cls(first.strip())
        if words:
            phase, since = Phase(words[0]), dt.datetime.fromisoformat(words[2]) if words[2:] else None
            file = cls(first.strip(), words[1], phase, since)
        for secret in filter(None, (file.signing, file.other)):
            if weakness(secret.encode()):
                raise ValueError(weakness(secret.encode()))
        if not file.signing or (file.phase is Phase.PREVIOUS) != (file.since is not None):
            raise ValueError("it is not whole")
        return file

    @property
    def text(self) -> str:
        """What stands in the file."""
        if self.phase is Phase.SETTLED:
            return f"{self.signing}\n"
        since = f" {self.since.isoformat()}" if self.since else ""
        return f"{self.signing}\n{self.phase.value} {self.other}{since}\n"

    @property
    def secrets(self) -> tuple[RootSecret, ...]:
        """The generations in force, the one that makes first."""
        return tuple(map(RootSecret.from_text, filter(None, (self.signing, self.other))))

    def announced(self) -> Self:
        """Accept a fresh next one."""
        return replace(self, other=self.fresh().signing, phase=Phase.NEXT)

    def switched(self, now: dt.datetime) -> Self:
        """Let the next one make, and accept the one before."""
        return replace(self, signing=self.other, other=self.signing, phase=Phase.PREVIOUS, since=now)

    def ended(self) -> Self:
        """Accept the one before no longer."""
        return type(self)(self.signing)


@dataclass(frozen=True, slots=True)
class RingFile:
    """The keys that seal credentials, by their ids, and which of them seals."""

    active: str
    keys: dict[str, str] = field(repr=False)
    other: str = ""
    phase: Phase = Phase.SETTLED

    @classmethod
    def fresh(cls) -> Self:
        """Make a ring with one key."""
        key_id, key = _fresh_key()
        return cls(key_id, {key_id: key})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the file's text.

        Raises:
            ValueError: it is none.
        """
        try:
            content: Any = json.loads(text)
            phase = next((each for each in Phase if each.value and each.value in content), Phase.SETTLED)
            file = cls(content["active"], content["keys"], content.get(phase.value, ""), phase)
            file.ring  # noqa: B018 - made to see whether it can be
            if file.other and file.other not in file.keys:
                raise ValueError("a key is missing")
        except (KeyError, TypeError, AttributeError):
            raise ValueError("it is not whole") from None
        return file

    @property
    def text(self) -> str:
        """What stands in the file."""
        content: dict[str, Any] = {"active": self.active, "keys": self.keys}
        if self.phase is not Phase.SETTLED:
            content[self.phase.value] = self.other
        return json.dumps(content) + "\n"

    @property
    def ring(self) -> CredentialRing:
        """The ring of these keys.

        Raises:
            ValueError: they are no keys.
        """
        return CredentialRing({name: decoded(key) for name, key in self.keys.items()}, self.active)

    def announced(self) -> Self:
        """Hold a fresh next key."""
        key_id, key = _fresh_key()
        return replace(self, keys=self.keys | {key_id: key}, other=key_id, phase=Phase.NEXT)

    def switched(self, now: dt.datetime) -> Self:
        """Let the next one seal, and hold the one before."""
        del now
        return replace(self, active=self.other, other=self.active, phase=Phase.PREVIOUS)

    def ended(self) -> Self:
        """Hold no key but the one that seals."""
        return type(self)(self.active, {self.active: self.keys[self.active]})


def read_root(path: Path, *, create: bool) -> RootFile:
    """Read the root secret's file, or make it with a fresh secret; of several starters one makes it.

    Without it every API key, session and page token is void: it belongs into the backup.

    Raises:
        ConfigurationError: the file cannot be made or read, is open to others, or holds no secret.
    """
    text = private_file.read_or_create(path, RootFile.fresh().text, ROOT) if create else _read(path, ROOT)
    return parsed_root(path, text)


def parsed_root(path: Path, text: str) -> RootFile:
    """Read the text of the root secret's file.

    Raises:
        ConfigurationError: it holds no secret.
    """
    try:
        return RootFile.parse(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{ROOT} {path} is not usable, {error}: put the file back from a backup"
        ) from None


def read_ring(path: Path, *, create: bool) -> RingFile:
    """Read the credential keys' file, or make it with a fresh key; of several starters one makes it.

    It cannot be made again: without it, what it sealed is lost.

    Raises:
        ConfigurationError: the file cannot be made or read, is damaged, or is open to others.
    """
    text = private_file.read_or_create(path, RingFile.fresh().text, RING) if create else _read(path, RING)
    return parsed_ring(path, text)


def parsed_ring(path: Path, text: str) -> RingFile:
    """Read the text of the credential keys' file.

    Raises:
        ConfigurationError: it is damaged.
    """
    try:
        return RingFile.parse(text)
    except ValueError:
        raise ConfigurationError(f"{RING} {path} are damaged: put the file back from a backup") from None


def _read(path: Path, what: str) -> str:
    return private_file.read(path, what)


def _fresh_key() -> tuple[str, str]:
    """Make a key and its id, random, so that a lost ring's texts are not tried with a new key."""
    return f"k{secrets.token_hex(4)}", base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
