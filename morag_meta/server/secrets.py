"""Where this installation's secrets come from: the environment, or files beside the SQLite database.

What they are for stands in ``auth/secret.py`` and ``auth/credentials.py``.
"""

from __future__ import annotations

from pathlib import Path

from morag_meta.auth import secret
from morag_meta.auth.credentials import CredentialRing
from morag_meta.auth.secret import RootSecret
from morag_meta.config import Settings
from morag_meta.db.url import normalize


def root_secret(settings: Settings) -> RootSecret:
    """Give the one secret; on SQLite it is made at first start.

    Raises:
        ConfigurationError: it is missing or unusable.
    """
    if settings.secret_key is not None:
        return RootSecret.from_text(settings.secret_key.get_secret_value())
    return secret.load_or_create(_beside(settings.require_secrets(), ".secret-key"))


def credential_ring(settings: Settings) -> CredentialRing:
    """Give the keys that seal server credentials; on SQLite they are made at first start.

    Raises:
        ConfigurationError: they are missing or unusable.
    """
    if settings.credential_keys is not None:
        return CredentialRing.parse(settings.credential_keys.get_secret_value())
    return CredentialRing.load_or_create(_beside(settings.require_secrets(), ".credential-keys"))


def _beside(settings: Settings, ending: str) -> Path:
    return Path(f"{normalize(settings.database_url).database}{ending}")
