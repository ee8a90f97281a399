"""A real server in this process, on a real port and a real database, and users with keys to call it.

Each kind of database has one such server for the whole run; tests keep apart by making users of their
own. Tests that kill, pause or restart start processes instead.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from morag_meta.api_keys.store import ApiKeyStore
from morag_meta.auth.keys import KeyHasher, new_key, prefix_of
from morag_meta.auth.principal import Role
from morag_meta.config.settings import Settings
from morag_meta.db import migrate
from morag_meta.db.database import Database
from morag_meta.server.app import App
from morag_meta.server.secrets import root_secrets
from morag_meta.users.actions import create_user
from moragmeta.v1 import (
    api_keys_pb2_grpc,
    audit_pb2_grpc,
    databases_pb2_grpc,
    documents_pb2_grpc,
    exports_pb2_grpc,
    grants_pb2_grpc,
    jobs_pb2_grpc,
    quotas_pb2_grpc,
    servers_pb2_grpc,
    users_pb2_grpc,
    workers_pb2_grpc,
)
from tests.backends.databases import Backend
from tests.backends.walled import is_walled
from tests.leaks.collected import SECRETS

SECRET_KEY = secrets.token_urlsafe(48)
CREDENTIAL_KEYS = "t1:" + base64.b64encode(secrets.token_bytes(32)).decode()
SECRETS.add("the root secret", SECRET_KEY)
SECRETS.add("the key of credentials", CREDENTIAL_KEYS.partition(":")[2])
SECRETS.add("the key of credentials", base64.b64decode(CREDENTIAL_KEYS.partition(":")[2]))


class Channel:
    """The stubs of one caller."""

    def __init__(
        self,
        target: str,
        metadata: tuple[tuple[str, str], ...],
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Connect, by TLS with credentials; ``metadata`` goes with every call that brings none of its own."""
        self.raw = (
            grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
        )
        intercepted = grpc.intercept_channel(self.raw, _Credentials(metadata))
        self.users = users_pb2_grpc.UserServiceStub(intercepted)
        self.servers = servers_pb2_grpc.ServerServiceStub(intercepted)
        self.databases = databases_pb2_grpc.DatabaseServiceStub(intercepted)
        self.grants = grants_pb2_grpc.GrantServiceStub(intercepted)
        self.documents = documents_pb2_grpc.DocumentServiceStub(intercepted)
        self.jobs = jobs_pb2_grpc.JobServiceStub(intercepted)
        self.workers = workers_pb2_grpc.WorkerServiceStub(intercepted)
        self.exports = exports_pb2_grpc.ExportServiceStub(intercepted)
        self.quotas = quotas_pb2_grpc.QuotaServiceStub(intercepted)
        self.api_keys = api_keys_pb2_grpc.ApiKeyServiceStub(intercepted)
        self.audit = audit_pb2_grpc.AuditServiceStub(intercepted)

    def close(self) -> None:
        """Disconnect."""
        self.raw.close()


class _Credentials(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the caller's credential, and a deadline so that no test hangs."""

    def __init__(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with(details, 30.0), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with(details, 60.0), request)

    def _with(self, details: Any, timeout: float) -> Any:
        metadata = (*self._metadata, *(details.metadata or ()))
        return _Details(details.method, details.timeout or timeout, metadata)


@dataclass(frozen=True)
class _Details(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...] | None
    credentials: Any = None
    wait_for_ready: Any = None
    compression: Any = None


@dataclass(frozen=True)
class User:
    """A user of the service with an API key of every scope."""

    id: str
    email: str
    role: Role
    key: str
    key_id: str
    channel: Channel


class Service:
    """A running server and its database."""

    def __init__(self, url: str, kind: str, **overrides: Any) -> None:
        """Migrate the database and start to serve it; ``overrides`` are settings."""
        migrate.upgrade(url)
        given: dict[str, Any] = {
            "secret_key": SECRET_KEY,
            "credential_keys": CREDENTIAL_KEYS,
            "bcrypt_cost": 10,
            "login_address_failures": 0,  # all tests log in from one address
        } | overrides
        given.setdefault("row_security", is_walled(url))
        self.settings = Settings(database_url=url, grpc_address="127.0.0.1:0", **given)
        self.url = url
        self.kind = kind
        self.database = Database.open(url)
        self.hasher = KeyHasher(root_secrets(self.settings).keys("api-key"))
        self._numbers = itertools.count(1)
        self._channels: list[Channel] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
        self._thread.start()
        self.app, self.port = self.on_loop(self._start())
        self.target = f"127.0.0.1:{self.port}"
        self._admin: User | None = None

    async def _start(self) -> tuple[App, int]:
        app = App(self.settings)
        return app, await app.start()

    def on_loop(self, work: Any, timeout: float = 60.0) -> Any:
        """Run a coroutine on the server's event loop and give its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def channel(self, api_key: str | None = None, token: str | None = None) -> Channel:
        """Give the stubs of a caller with an API key, an access token, or nothing."""
        metadata: tuple[tuple[str, str], ...] = ()
        if api_key is not None:
            metadata = (("x-api-key", api_key),)
        elif token is not None:
            metadata = (("authorization", f"Bearer {token}"),)
        channel = Channel(self.target, metadata)
        self._channels.append(channel)
        return channel

    def new_user(self, role: Role | str = Role.USER, *, password_hash: str | None = None) -> User:
        """Make a user with an API key."""
        role = Role[role] if isinstance(role, str) else role
        email = f"user{next(self._numbers)}@{self.kind}.test"
        with self.database.unit_of_work() as uow:
            row = create_user(uow, name="Test User", email=email, role=role, password_hash=password_hash)
            key_id, key = add_key(uow.api_keys, self.hasher, row["id"])
            uow.commit()
        return User(row["id"], email, role, key, key_id, self.channel(api_key=key))

    def wait_for_places(self, user: User, count: int, timeout: float = 30.0) -> None:
        """Wait until a user has exactly so many open streams and waiting calls at the server."""
        end = time.monotonic() + timeout
        while (taken := self.app._streams.places.taken(user.id)) != count:  # noqa: SLF001 - nobody else asks
            assert time.monotonic() < end, f"{taken} places are taken and not {count}"
            time.sleep(0.01)

    @property
    def admin(self) -> User:
        """An ADMIN, made once."""
        if self._admin is None:
            self._admin = self.new_user(Role.ADMIN)
        return self._admin

    @property
    def admin_key(self) -> str:
        """The API key of that ADMIN."""
        return self.admin.key

    def close(self, grace: float = 0.5) -> None:
        """Stop as a process stops."""
        for channel in self._channels:
            channel.close()
        self.on_loop(self.app.stop(grace))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self.database.close()


def add_key(store: ApiKeyStore, hasher: KeyHasher, owner_id: str, name: str = "test") -> tuple[str, str]:
    """Write an API key of every scope; give its id and the secret."""
    key = new_key()
    row = store.add(
        owner_id,
        name=name,
        description="",
        key_hash=hasher.digest(key),
        key_prefix=prefix_of(key),
        scopes=["*"],
        expire_time=None,
    )
    return row["id"], key


@pytest.fixture(scope="session")
def service(backend: Backend) -> Iterator[Service]:
    """Give the run's server on this kind of database.

    It writes the figures of keys at its end alone, so that two looks at a key see the same.
    """
    with serving(backend, api_key_usage_interval=3600.0) as started:
        yield started


@contextmanager
def serving(backend: Backend, **overrides: Any) -> Iterator[Service]:
    """Serve a fresh database with settings of the test's own."""
    url = backend.new_url()
    started = Service(url, backend.name, **overrides)
    try:
        yield started
    finally:
        started.close()
        backend.drop(url)


@pytest.fixture(scope="module")
def there(backend: Backend) -> Iterator[tuple[Service, Service]]:
    """Serve a database twice, as two processes do."""
    with serving(backend) as here:
        second = Service(here.url, here.kind)
        try:
            yield here, second
        finally:
            second.close()


NewService = Callable[..., Service]


@pytest.fixture
def user(service: Service) -> User:
    """Give a fresh USER."""
    return service.new_user()
