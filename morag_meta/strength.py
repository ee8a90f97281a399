"""Whether a secret could be random: what shows at a glance that somebody typed or copied it.

What secrets there are, and what is said when one is refused, stands in ``config/settings.py`` and
``auth/secret.py``.
"""

from __future__ import annotations

import re
from typing import Final

LEAST_BYTES: Final = 32
"""The fewest bytes of a secret."""

_FEWEST_DIFFERENT_BYTES: Final = 10  # text of 32 random bytes, also in hex, holds fewer about never
# Six letters and more: random text in base64 holds one of them about once in ten million times.
_EXAMPLE: Final = re.compile(
    b"secret|change|example|password|default|insecure|production|replace|placeholder"
    b"|abcdefghijklmnopqrstuvwxyz|0123456789abcdef0123456789abcdef",
    re.IGNORECASE,
)


def weakness(secret: bytes) -> str:
    """Say what is wrong with a secret, in words that do not show it; empty when nothing is."""
    if len(secret) < LEAST_BYTES:
        return f"it is shorter than {LEAST_BYTES} bytes"
    if _EXAMPLE.search(secret):
        return "it looks like an example value"
    if len(set(secret)) < _FEWEST_DIFFERENT_BYTES or _repeats(secret):
        return "it is not random"
    return ""


def _repeats(secret: bytes) -> bool:
    """Whether it is one shorter text over and over: then it stands in its own double before the end."""
    return (secret + secret).find(secret, 1) < len(secret)
