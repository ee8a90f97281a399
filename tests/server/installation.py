"""An installation whose secrets stand in files, with something of everything that they made."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from morag_meta.api_keys.actions import create_key
from morag_meta.auth import private_file
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.refresh_tokens import RefreshTokens
from morag_meta.auth.secret import RootSecrets
from morag_meta.auth.secret_files import RingFile, RootFile, read_ring, read_root
from morag_meta.auth.store import StandingStore
from morag_meta.auth.tries import TryKey
from morag_meta.config.settings import Settings
from morag_meta.db import migrate
from morag_meta.db.schema import api_keys, request_records
from morag_meta.ids import new_id
from morag_meta.server.preparation import opened
from morag_meta.server.secrets import credential_rings, root_secrets
from morag_meta.servers.secrets import reveal, seal
from morag_meta.users.actions import create_user
from tests.backends.databases import Backend

PASSWORD = "open-sesame-4711"
EMAIL = "ada@rotation.test"
HOUR = dt.timedelta(hours=1)


def secret_files(url: str, folder: Path) -> dict[str, Any]:
    """Make the files that hold secrets, but on SQLite, where the first start does; give their settings."""
    if url.startswith("sqlite"):
        return {}
    files = {"secret_key_file": folder / "root", "credential_keys_file": folder / "ring"}
    for path, text in zip(files.values(), (RootFile.fresh().text, RingFile.fresh().text), strict=True):
        private_file.write_once(path, text)
    return {name: str(path) for name, path in files.items()}


class Installation:
    """A database that nobody serves, and its secrets."""

    def __init__(self, backend: Backend, url: str, folder: Path, *, keys: int = 3) -> None:
        """Fill the database: a user with so many keys and servers, a session, a reset, a try, a record."""
        self.kind = backend.name
        self.settings = Settings(database_url=url, **secret_files(url, folder))
        migrate.upgrade(url)
        secrets, ring = root_secrets(self.settings), credential_rings(self.settings)()
        self.root = self._path("secret_key_file", ".secret-key")
        self.ring = self._path("credential_keys_file", ".credential-keys")
        self.was_root, self.was_ring = self.root_file(), self.ring_file()
        hashers = {name: KeyHasher(secrets.keys(name)) for name in ("api-key", "password-reset", "tries")}
        self.token, self.keys = "a-token-that-resets", []
        tokens, session = RefreshTokens(secrets.keys("refresh-token")), new_id()
        self.refresh_token = tokens.first(session)
        with opened(self.settings) as database, database.unit_of_work() as uow:
            self.owner = create_user(uow, name="Ada", email=EMAIL)["id"]
            for number in range(keys):
                _, key = create_key(uow, hashers["api-key"], owner_id=self.owner, name=f"key {number}")
                self.keys.append(key)
                server_id = new_id()
                sealed = seal(ring, server_id, {"password": PASSWORD, "api_key": f"key {number}"})
                name = f"server {number}"
                uow.servers.add(server_id, self.owner, name=name, kind="QDRANT", host="h", port=1, **sealed)
            end = uow.now + HOUR
            hashed = hashers["password-reset"].digest(self.token)
            uow.resets.add(self.owner, token_hash=hashed, expire_time=end)
            uow.tries.add(self.try_key(hashers["tries"]), end)
            refresh_hash = tokens.digest(self.refresh_token)
            uow.sessions.add(self.owner, session, refresh_hash=refresh_hash, expire_time=end)
            record = {"owner_id": self.owner, "method": "X.Y", "request_id": "r", "create_time": uow.now}
            fingerprint = KeyHasher(secrets.keys("request-fingerprint")).digest("request")
            uow.connection.execute(sa.insert(request_records).values(**record, fingerprint=fingerprint))
            uow.commit()

    def _path(self, name: str, ending: str) -> Path:
        given = getattr(self.settings, name)
        return Path(given or self.settings.database_url.removeprefix("sqlite:///") + ending)

    def root_file(self) -> RootFile:
        """Read the root secret's file."""
        return read_root(self.root, create=False)

    def ring_file(self) -> RingFile:
        """Read the credential keys' file."""
        return read_ring(self.ring, create=False)

    @staticmethod
    def try_key(hasher: KeyHasher) -> TryKey:
        """Give whose tries were counted."""
        return TryKey("LOGIN", hasher.digest(EMAIL), "")

    def unknown(self) -> list[str]:
        """Name everything that was made and that the present files do not know any more."""
        found, secrets = [], root_secrets(self.settings)
        ring = credential_rings(self.settings)()
        hashers = {
            name: KeyHasher(secrets.keys(name))
            for name in ("api-key", "password-reset", "tries", "request-fingerprint")
        }
        with opened(self.settings) as database, database.unit_of_work() as uow:
            standings = [StandingStore(uow).of_key(hashers["api-key"].digest(key)) for key in self.keys]
            found += [f"key {n}" for n, row in enumerate(standings) if row["user_id"] != self.owner]
            if uow.resets.find(hashers["password-reset"].digest(self.token)) is None:
                found.append("reset")
            if uow.tries.find(self.try_key(hashers["tries"])) is None:
                found.append("try")
            kept = uow.connection.execute(sa.select(request_records.c.fingerprint)).scalars().all()
            if kept != [hashers["request-fingerprint"].digest("request")]:
                found.append("request")
            servers = uow.servers.page(self.owner, None, 1000)
            sealed = [row for row in servers if not _is_sealed_by(ring.active, row)]
            found += [f"sealed {row['name']}" for row in sealed]
            revealed = {reveal(ring, row)["password"] for row in servers}
            if revealed != {PASSWORD} or len(servers) != len(self.keys):
                found.append("credentials")
        return found

    def is_read(self) -> bool:
        """Whether what the files hold at this moment reads each credential and key, of any generation."""
        hasher = KeyHasher(RootSecrets(lambda: self.root_file().secrets).keys("api-key"))
        with opened(self.settings) as database, database.unit_of_work() as uow:
            kept = {row["key_hash"] for row in uow.connection.execute(sa.select(api_keys)).mappings()}
            rows = uow.servers.page(self.owner, None, 1000)
        ring = self.ring_file().ring
        known = [not kept.isdisjoint(hasher.digests(key)) for key in self.keys]
        return all(known) and {reveal(ring, row)["password"] for row in rows} == {PASSWORD}

    def known_to_before(self) -> list[str]:
        """Name what the files of the beginning still know."""
        (before,) = self.was_root.secrets
        found = []
        with opened(self.settings) as database, database.unit_of_work() as uow:
            hasher = KeyHasher(before.subkey("api-key"))
            rows = [StandingStore(uow).of_key(hasher.digest(key)) for key in self.keys]
            found += ["key" for row in rows if row["user_id"] is not None]
            if uow.resets.find(KeyHasher(before.subkey("password-reset")).digest(self.token)) is not None:
                found.append("reset")
            if uow.tries.find(self.try_key(KeyHasher(before.subkey("tries")))) is not None:
                found.append("try")
            found += [row["name"] for row in uow.servers.page(self.owner, None, 1000) if self._is_old(row)]
        return found

    def _is_old(self, row: Any) -> bool:
        return f"v1.{self.was_ring.active}." in str(row)

    def is_settled(self) -> bool:
        """Whether each file holds one generation, another than at the beginning, and nothing was left."""
        root, ring = self.root_file(), self.ring_file()
        single = len(root.secrets) == 1 and len(ring.keys) == 1
        left = list(self.root.parent.glob(".*"))
        modes = {path.stat().st_mode & 0o777 for path in (self.root, self.ring)}
        other = root.signing != self.was_root.signing and ring.active != self.was_ring.active
        return single and other and not left and modes == {0o600}


def _is_sealed_by(key_id: str, row: Any) -> bool:
    return all(row[name].startswith(f"v1.{key_id}.") for name in ("password_sealed", "api_key_sealed"))
