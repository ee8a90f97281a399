"""Where this installation's secrets come from: the environment, or files beside the SQLite database.

What they are for stands in ``auth/secret.py`` and ``auth/credentials.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from morag_meta.auth import secret
from morag_meta.auth.credentials import CredentialRing
from morag_meta.auth.secret import RootSecret
from morag_meta.config import ConfigurationError, Settings
from morag_meta.db.sqlite_file import is_missing
from morag_meta.db.survey import holds_credentials, holds_keys
from morag_meta.db.url import masked, normalize


def root_secret(settings: Settings) -> RootSecret:
    """Give the one secret; on SQLite it is made at first start.

    Raises:
        ConfigurationError: it is missing or unusable.
    """
    if settings.secret_key is not None:
        return RootSecret.from_text(settings.secret_key.get_secret_value())
    return secret.load_or_create(_beside(settings.require_secrets(), ".secret-key", holds_keys))


def credential_ring(settings: Settings) -> CredentialRing:
    """Give the keys that seal server credentials; on SQLite they are made at first start.

    Raises:
        ConfigurationError: they are missing or unusable.
    """
    if settings.credential_keys is not None:
        return CredentialRing.parse(settings.credential_keys.get_secret_value())
    return CredentialRing.load_or_create(
        _beside(settings.require_secrets(), ".credential-keys", holds_credentials)
    )


def _beside(settings: Settings, ending: str, holds: Callable[[str], bool]) -> Path:
    """Name the secret's file, unless a new one would void what the database keeps already."""
    url = settings.database_url
    path = Path(f"{normalize(url).database}{ending}")
    # The file is looked for again: a first start makes it before it makes its first key.
    if not path.exists() and not is_missing(url) and holds(url) and not path.exists():
        file = path.name.removesuffix(ending)
        raise ConfigurationError(
            f"{masked(url)} holds what needs the lost file {path}: put {file}.secret-key and "
            f"{file}.credential-keys back beside it, or set MORAG_SECRET_KEY and MORAG_CREDENTIAL_KEYS "
            "(new values void its API keys and sealed credentials)"
        )
    return path
