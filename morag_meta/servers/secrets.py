"""The secrets of a server: which of its values are sealed, and for which place.

A password or an API key is bound to its server and field, so a sealed one that is copied elsewhere does
not open. What does not live here: the cipher and its keys (``auth/credentials.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from morag_meta.auth.credentials import CredentialRing

SECRETS: Final = ("password", "api_key")


def seal(ring: CredentialRing, server_id: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the values as columns: each secret among them sealed, a secret that is None removed."""
    columns = {name: value for name, value in values.items() if name not in SECRETS}
    for name in SECRETS:
        if name in values:
            text = values[name]
            sealed = None if text is None else ring.seal(text, context=_place(server_id, name))
            columns[f"{name}_sealed"] = sealed
    return columns


def reveal(ring: CredentialRing, row: Mapping[str, Any]) -> dict[str, str | None]:
    """Give ``password`` and ``api_key`` of a server's row, for a program that embeds the service.

    No RPC answers with what this gives.

    Raises:
        UnreadableCredentialError: one is damaged, or its key is not in the ring.
    """
    revealed: dict[str, str | None] = {}
    for name in SECRETS:
        sealed = row[f"{name}_sealed"]
        revealed[name] = None if sealed is None else ring.open_(sealed, context=_place(row["id"], name))
    return revealed


def resealed(ring: CredentialRing, row: Mapping[str, Any]) -> dict[str, str]:
    """Give the columns of a server's row that another key than the ring's active one sealed, sealed by it.

    Raises:
        UnreadableCredentialError: one is damaged, or its key is not in the ring.
    """
    anew: dict[str, str] = {}
    for name in SECRETS:
        sealed, place = row[f"{name}_sealed"], _place(row["id"], name)
        if sealed is not None and not ring.is_active(sealed):
            anew[f"{name}_sealed"] = ring.seal(ring.open_(sealed, context=place), context=place)
    return anew


def _place(server_id: str, name: str) -> str:
    return f"servers/{server_id}/{name}"
