"""The forms of texts: what makes a UUID, a token, an email address or a name. Pure.

The protos say which field has which form (``Format`` in options.proto). Each function gives what is wrong
with a text, or nothing; how a violation is told stands with whoever asks.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")


def uuid(text: str) -> str:
    """A UUID is 36 characters, lower case with hyphens (RFC 9562)."""
    return "" if _UUID.fullmatch(text) else "must be a UUID in lower case with hyphens"


def uuid_or(word: str, text: str, meaning: str) -> str:
    """A UUID, or one word that stands for something else."""
    return "" if text == word or _UUID.fullmatch(text) else f"must be a UUID, or '{word}' for {meaning}"


def token(text: str) -> str:
    """A token is visible ASCII without spaces."""
    return "" if _TOKEN.fullmatch(text) else "must be visible ASCII characters without spaces"


def email(text: str) -> str:
    """An address has one @ with something on either side, whatever white space is around it."""
    return "" if _EMAIL.fullmatch(text.strip()) else "must be an email address"


def name(text: str) -> str:
    """A name has no control characters and is not white space alone; spaces around it count as part of it."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        return "must not contain control characters"
    return "" if text.strip() else "must not be white space alone"
