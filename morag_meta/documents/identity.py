"""What makes two uploads the same document, as pure decisions.

What does not live here: looking for documents with an identity (``store.py``), and what is done with the
one that is found (``actions.py``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morag_meta.errors import MetaError, Violation, exists

NO_DATABASE: Final = "-"
"""The scope of the identities of documents that are in no database."""
IDENTITIES: Final = ("external_id", "content_hash", "name")
"""What makes two uploads the same document, the stronger before the weaker."""


class OnDuplicate(enum.StrEnum):
    """What a second upload of a document does."""

    REJECT = "REJECT"
    RETURN_EXISTING = "RETURN_EXISTING"
    NEW_VERSION = "NEW_VERSION"


class Outcome(enum.StrEnum):
    """What an upload did."""

    CREATED = "CREATED"
    EXISTING = "EXISTING"
    NEW_VERSION = "NEW_VERSION"


def scope_of(database_id: str | None) -> str:
    """Within what the identities of a live document are unique."""
    return database_id or NO_DATABASE


@dataclass(frozen=True, slots=True)
class Match:
    """A live document that has an identity asked for: the field that is the same, and its id."""

    field: str
    id: str


def same_document(matches: Iterable[Match]) -> Match | None:
    """Choose which live document an upload is about: the match by its strongest identity, or None.

    Raises:
        AlreadyExists: its identities belong to two different documents.
    """
    ordered = sorted(matches, key=lambda match: IDENTITIES.index(match.field))
    for match in ordered:
        if match.id != ordered[0].id:
            raise exists("document", match.field, match.id)
    return ordered[0] if ordered else None


def same_content(row: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether the content of an upload is known to be the one that the document has."""
    given = fields.get("content_hash")
    return given is not None and given == row["content_hash"]


def in_item(error: MetaError, position: int) -> MetaError:
    """Give the error of one item of a batch, with the item before the names of its fields."""
    item = f"requests[{position}]"
    metadata = dict(error.metadata)
    if metadata.get("resource_type") == "document" and "field" in metadata:
        metadata["field"] = f"{item}.document.{metadata['field']}"
    elif metadata.get("resource_type") == "database":
        metadata["field"] = f"{item}.document.database_id"
    violations = [Violation(f"{item}.{found.field}", found.description) for found in error.violations]
    return type(error)(
        f"{item}: {error.message}",
        reason=error.reason,
        metadata=metadata,
        violations=violations,
        retry_after=error.retry_after,
    )
