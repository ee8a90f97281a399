"""From bytes to chunks: what this folder's worker makes of a text file. No service is needed for it.

The rule, so that anybody can count again:

1. The bytes are UTF-8 without NUL characters, or the file is not text. A leading byte order mark is left
   out, and every line end becomes a line feed.
2. A paragraph is a run of lines that are not blank, without the white space before and after it.
3. A paragraph of more than 900 characters is cut after every 900.
4. Pieces are packed in order, joined by a blank line, for as long as the sum stays within 900 characters.
5. Every chunk but the first begins with the last 100 characters of the packed text before it, so that
   no sentence is lost at a border. A chunk has therefore at most 1000 characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

CHUNK_CHARACTERS: Final = 1000
OVERLAP_CHARACTERS: Final = 100

_PACKED: Final = CHUNK_CHARACTERS - OVERLAP_CHARACTERS
_BETWEEN: Final = "\n\n"
_BLANK_LINES: Final = re.compile(r"\n(?:[^\S\n]*\n)+")


class NotTextError(ValueError):
    """The bytes are not text; the message says where that shows."""


def decode(content: bytes) -> str:
    """Return the text of a file.

    Raises:
        NotTextError: a NUL character, or bytes that are not UTF-8.
    """
    if (place := content.find(0)) >= 0:
        raise NotTextError(f"not a text file: byte {place} is NUL")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotTextError(f"not a text file: byte {error.start} is not UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def chunk(text: str) -> Iterator[str]:
    """Give the chunks of a text in order."""
    before = ""
    for packed in _pack(text):
        yield before + packed
        before = packed[-OVERLAP_CHARACTERS:]


def printable_share(text: str) -> float:
    """Return the share of characters, 0 to 1, that can be printed or are white space; 0 for no text.

    It is low where a file of another kind passed for text, which is why the worker calls it quality.
    """
    if not text:
        return 0.0
    return sum(character.isprintable() or character.isspace() for character in text) / len(text)


def _pack(text: str) -> Iterator[str]:
    packed = ""
    for piece in _pieces(text):
        if packed and len(packed) + len(_BETWEEN) + len(piece) > _PACKED:
            yield packed
            packed = piece
        else:
            packed = f"{packed}{_BETWEEN}{piece}" if packed else piece
    if packed:
        yield packed


def _pieces(text: str) -> Iterator[str]:
    for paragraph in map(str.strip, _BLANK_LINES.split(text)):
        for start in range(0, len(paragraph), _PACKED):
            yield paragraph[start : start + _PACKED]
