"""A SQLite database without the files that hold its secrets: refused where new ones would void it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from morag_meta.auth.credentials import CredentialRing
from morag_meta.config.error import ConfigurationError
from morag_meta.config.loading import load
from morag_meta.config.settings import Settings
from morag_meta.db import migrate
from morag_meta.ids import new_id
from morag_meta.server.preparation import opened, prepare
from morag_meta.server.secrets import credential_rings, root_secrets
from morag_meta.servers.secrets import seal
from morag_meta.users.actions import create_user


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Give the settings of a SQLite database that is not there yet, and nothing from outside."""
    for name in [name for name in os.environ if name.startswith("MORAG_")]:
        monkeypatch.delenv(name)
    return load(database_url=f"sqlite:///{tmp_path}/x.db")


def test_copy_without_its_secrets_is_refused(settings: Settings, tmp_path: Path) -> None:
    """A copied database file with keys is not given new secrets; both files and the way out are named."""
    assert prepare(settings) is not None
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "x.db", copy / "w.db")
    elsewhere = load(database_url=f"sqlite:///{copy}/w.db")
    with pytest.raises(ConfigurationError) as caught:
        prepare(elsewhere)
    for told in ("w.db.secret-key", "w.db.credential-keys", "MORAG_SECRET_KEY", "MORAG_CREDENTIAL_KEYS"):
        assert told in str(caught.value)
    assert not list(copy.glob("*key*"))
    for ending in ("secret-key", "credential-keys"):
        shutil.copy(tmp_path / f"x.db.{ending}", copy / f"w.db.{ending}")
    assert prepare(elsewhere) is None
    assert root_secrets(elsewhere).keys("api-key")() == root_secrets(settings).keys("api-key")()


def test_lost_ring_is_made_anew_only_while_nothing_is_sealed(settings: Settings, tmp_path: Path) -> None:
    """Without a stored credential a lost ring costs nothing; with one it is refused."""
    prepare(settings)
    (tmp_path / "x.db.credential-keys").unlink()
    ring = credential_rings(settings)()
    _add_server(settings, ring)
    (tmp_path / "x.db.credential-keys").unlink()
    with pytest.raises(ConfigurationError, match="holds what needs the lost file"):
        credential_rings(settings)
    assert not (tmp_path / "x.db.credential-keys").exists()


def test_users_without_keys_need_no_secret(settings: Settings) -> None:
    """Users made before the first start do not keep it from making the secrets."""
    migrate.upgrade(settings.database_url)
    with opened(settings) as database, database.unit_of_work() as uow:
        create_user(uow, name="Ada", email="ada@example.org")
        uow.commit()
    assert prepare(settings) is None
    assert root_secrets(settings).keys("api-key")()


def _add_server(settings: Settings, ring: CredentialRing) -> None:
    server_id = new_id()
    sealed = seal(ring, server_id, {"password": "hunter2"})
    with opened(settings) as database, database.unit_of_work() as uow:
        owner = create_user(uow, name="Bea", email="bea@example.org")["id"]
        uow.servers.add(server_id, owner, name="q", kind="QDRANT", host="localhost", port=6333, **sealed)
        uow.commit()
