"""Whether the secrets that are given can read what the database keeps, looked at before serving.

With the wrong ones a service would run and know no API key. Where nothing can be read it does not start; a
few rows that are left of a lost secret must not take it down, and are warned of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from morag_meta.auth.credentials import CredentialRing
from morag_meta.auth.keys import KeyHasher
from morag_meta.config.error import ConfigurationError
from morag_meta.uow import UnitOfWork

LOOKED_AT: Final = 1000
"""Rows at each end that are looked at; the others are only where none of these can be read."""

_log = structlog.get_logger(__name__)


def require_readable(uow: UnitOfWork, hasher: KeyHasher, ring: CredentialRing, *, accept_lost: bool) -> None:
    """Warn of API keys and sealed credentials that no given generation made, and refuse where all are such.

    With ``accept_lost`` that is warned of, too.

    Raises:
        ConfigurationError: of API keys, or of sealed credentials, there are some, and none can be read.
    """
    makers = uow.makers
    problems = [
        *_problems(
            "API key", "MORAG_SECRET_KEY", hasher.generations, makers.makers_of_keys, makers.has_key_of
        ),
        *_problems(
            "sealed credential", "MORAG_CREDENTIAL_KEYS", ring.ids, makers.makers_of_seals, makers.has_seal_of
        ),
    ]
    refused = [problem for problem, is_total in problems if is_total and not accept_lost]
    if refused:
        raise ConfigurationError(*refused)
    for problem, _ in problems:
        _log.warning("what the database keeps cannot be read", problem=problem)


def _problems(
    what: str,
    variable: str,
    given: Sequence[str],
    look: Callable[[int], set[str]],
    has_any: Callable[[Sequence[str]], bool],
) -> list[tuple[str, bool]]:
    """Give a line for a person and whether nothing at all can be read; nothing where all is well."""
    makers = look(LOOKED_AT)
    unknown = sorted(makers.difference(given))
    if not unknown:
        return []
    by = f"made by {', '.join(unknown)}, and {variable} gives {', '.join(given)}"
    if not makers.isdisjoint(given) or has_any(given):
        return [(f"some {what}s cannot be read, {by}: 'morag-meta secrets status' counts them", False)]
    problem = (
        f"no {what} in the database can be read, {by}: give back the secret that made them, behind a comma "
        "if it was changed; is it lost for good, 'morag-meta serve --accept-lost-secrets' starts"
    )
    return [(problem, True)]
