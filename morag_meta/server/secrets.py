"""Where this installation's secrets come from: the environment, files it names, or files beside SQLite's.

What they are for stands in ``auth/secret.py`` and ``auth/credentials.py``, what stands in the files in
``auth/secret_files.py``, and how one is changed for another in ``server/rotation.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from morag_meta.auth.credentials import CredentialRing
from morag_meta.auth.generations import Keys, keys_of
from morag_meta.auth.secret import RootSecrets
from morag_meta.auth.secret_files import RING, ROOT, parsed_ring, parsed_root, read_ring, read_root
from morag_meta.auth.watched_file import WatchedFile
from morag_meta.config.error import ConfigurationError
from morag_meta.config.loading import require_secrets
from morag_meta.config.settings import Settings
from morag_meta.db.sqlite_file import is_missing
from morag_meta.db.survey import holds_credentials, holds_keys
from morag_meta.db.url import masked, normalize

Rings = Callable[[], CredentialRing]
"""Gives the ring that is in force now."""


def root_secrets(settings: Settings) -> RootSecrets:
    """Give the root secret in its generations; on SQLite it is made at first start.

    Raises:
        ConfigurationError: it is missing or unusable.
    """
    if settings.secret_key is not None:
        return RootSecrets.parse(settings.secret_key.get_secret_value())
    path = root_file(settings)
    read_root(path, create=settings.secret_key_file is None)
    return RootSecrets(WatchedFile(path, ROOT, lambda text: parsed_root(path, text).secrets))


def credential_rings(settings: Settings) -> Rings:
    """Give what gives the keys that seal server credentials; on SQLite they are made at first start.

    Raises:
        ConfigurationError: they are missing or unusable.
    """
    if settings.credential_keys is not None:
        ring = CredentialRing.parse(settings.credential_keys.get_secret_value())
        return lambda: ring
    path = ring_file(settings)
    read_ring(path, create=settings.credential_keys_file is None)
    return WatchedFile(path, RING, lambda text: parsed_ring(path, text).ring)


def jwt_keys(settings: Settings, secrets: RootSecrets) -> Keys:
    """Give the keys of access tokens: their own setting's, or those derived."""
    own: SecretStr | None = settings.jwt_secret_key
    if own is None:
        return secrets.keys("jwt", 64)
    keys = tuple(key.strip().encode() for key in own.get_secret_value().split(","))
    return keys_of(keys[0]) if len(keys) == 1 else lambda: keys


def root_file(settings: Settings) -> Path:
    """Name the root secret's file.

    Raises:
        ConfigurationError: there is none and may be none, or it is lost.
    """
    if settings.secret_key_file is not None:
        return Path(settings.secret_key_file)
    return _beside(require_secrets(settings), ".secret-key", holds_keys)


def ring_file(settings: Settings) -> Path:
    """Name the credential keys' file; raises as ``root_file``."""
    if settings.credential_keys_file is not None:
        return Path(settings.credential_keys_file)
    return _beside(require_secrets(settings), ".credential-keys", holds_credentials)


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
