"""The composition root: every part of a serving process, made and joined in one place.

Read it top to bottom to see what there is. When a process starts and why it ends is ``process.py``'s
matter; what a call goes through is ``rpc/dispatch.py``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Coroutine
from typing import Any

import grpc

from morag_meta.api_keys.rules import Policy
from morag_meta.api_keys.servicer import ApiKeyServicer
from morag_meta.audit.servicer import AuditServicer
from morag_meta.audit.writer import AuditWriter
from morag_meta.auth.authenticator import Authenticator
from morag_meta.auth.epoch import EpochWatch
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.passwords import Passwords
from morag_meta.auth.principal import Rate, Role
from morag_meta.auth.rates import Rates
from morag_meta.auth.secret import RootSecrets
from morag_meta.auth.throttle import Limit, Limits, Throttle
from morag_meta.auth.tokens import Tokens
from morag_meta.auth.usage import KeyUsage
from morag_meta.config.settings import Settings
from morag_meta.databases.servicer import DatabaseServicer
from morag_meta.db.database import Database
from morag_meta.db.engine import DatabaseOptions
from morag_meta.db.notices import Notices
from morag_meta.documents.servicer import DocumentServicer
from morag_meta.exports.servicer import ExportServicer
from morag_meta.grants.servicer import GrantServicer
from morag_meta.health.probe import Probe
from morag_meta.health.servicer import Health
from morag_meta.jobs.feed import Feed
from morag_meta.jobs.limits import Backoff
from morag_meta.jobs.servicer import JobServicer
from morag_meta.jobs.store import LOG_TOPIC
from morag_meta.quotas.servicer import QuotaServicer
from morag_meta.rpc.access import SERVICES, known_scopes
from morag_meta.rpc.dispatch import Dispatcher
from morag_meta.rpc.drain import drain, farewell
from morag_meta.rpc.pages import Pages
from morag_meta.rpc.stream import StreamOptions
from morag_meta.rpc.streams import Streams, draining
from morag_meta.server import listening, sweeper
from morag_meta.server.reaper import Reaper
from morag_meta.server.secrets import credential_rings, jwt_keys, root_secrets
from morag_meta.server.tls import Tls
from morag_meta.servers.servicer import ServerServicer
from morag_meta.users.password_resets import PasswordResets, ResetTokens
from morag_meta.users.rules import Registration
from morag_meta.users.servicer import UserServicer
from morag_meta.workers.openings import Openings
from morag_meta.workers.servicer import WorkerServicer


def database_options(settings: Settings) -> DatabaseOptions:
    """Give the part of the settings that is about the database."""
    return DatabaseOptions(
        url=settings.database_url,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_timeout=settings.database_pool_timeout,
        pool_recycle=settings.database_pool_recycle,
        pre_ping=settings.database_pre_ping,
        echo=settings.database_echo,
        statement_timeout=settings.database_statement_timeout,
        connect_timeout=settings.database_connect_timeout,
        queue=settings.database_queue,
        default_quotas=settings.default_quotas,
    )


def key_policy(settings: Settings) -> Policy:
    """Give what the settings ask of API keys."""
    longest = settings.api_key_longest_life
    return Policy(
        settings.api_key_require_expiry,
        dt.timedelta(seconds=longest) if longest else None,
        Rate.of(settings.api_key_rate, settings.api_key_burst),
    )


def _stream_options(settings: Settings) -> StreamOptions:
    return StreamOptions(
        settings.stream_heartbeat,
        settings.stream_write_timeout,
        settings.stream_max_age,
        settings.stream_limit,
    )


def _make_tokens(settings: Settings, secrets: RootSecrets) -> Tokens:
    return Tokens(
        jwt_keys(settings, secrets),
        secrets.keys("refresh-token"),
        algorithm=settings.jwt_algorithm,
        session_life=dt.timedelta(hours=settings.jwt_expiration_hours),
    )


def make_throttle(settings: Settings, secrets: RootSecrets) -> Throttle:
    """Give what bounds tries at passwords and tokens."""
    period = dt.timedelta(seconds=settings.login_window)
    limits = Limits(
        of_account_at_address=Limit(settings.login_failures, period),
        of_account=Limit(settings.login_account_failures, period),
        of_address=Limit(settings.login_address_failures, period),
    )
    return Throttle(secrets.keys("tries"), limits)


def make_reset_tokens(settings: Settings, secrets: RootSecrets) -> ResetTokens:
    """Give what makes tokens that reset passwords."""
    life = dt.timedelta(seconds=settings.password_reset_life)
    return ResetTokens(secrets.keys("password-reset"), life)


def _retention(settings: Settings) -> sweeper.Retention:
    return sweeper.Retention(
        jobs=settings.job_retention,
        events=settings.event_retention,
        audit=settings.audit_retention_days * 86_400.0,
        reset_requests=settings.password_reset_life,
    )


class App:
    """One server: make it, start it on a running event loop, stop it."""

    def __init__(self, settings: Settings, *, shared_port: bool = False) -> None:
        """Make every part; ``shared_port`` lets other processes listen on the same address.

        Raises:
            ConfigurationError: a secret or a TLS file is missing or unusable.
            UndeclaredAccess, UnfitServicer: a service and its servicer do not fit.
        """
        self._settings = settings
        secrets = root_secrets(settings)
        options = database_options(settings)
        self.database = Database(options)
        self._passwords = Passwords(settings.bcrypt_cost)
        self._hasher = KeyHasher(secrets.keys("api-key"))
        self._tokens = _make_tokens(settings, secrets)
        self._throttle = make_throttle(settings, secrets)
        self._reset_tokens = make_reset_tokens(settings, secrets)
        self._epochs = EpochWatch(self.database)
        self._usage = KeyUsage(self.database, interval=settings.api_key_usage_interval)
        self._rates = Rates(key_policy(settings).limit, Rate.of(settings.public_rate, settings.public_burst))
        self.authenticator = Authenticator(
            self.database, self._hasher, self._tokens, self._epochs, self._usage, self._rates
        )
        self.audit = AuditWriter(self.database)
        self._streams = Streams(_stream_options(settings), self.authenticator, lambda: self._epochs.newest)
        self.feed = Feed(self.database, settings.stream_poll_interval, self._streams.end_all)
        shared = options.dialect == "postgresql"
        self._notices = Notices(options, self.feed.hint, LOG_TOPIC) if shared else None
        backoff = Backoff(settings.retry_backoff, settings.retry_backoff_limit)
        self._reaper = Reaper(self.database, backoff, settings.reaper_interval)
        self.openings = Openings(self.database, self.feed.look_soon, self._streams.places)
        self.feed.on_event(self.openings.note_event, lambda: self.openings.waiting)
        self._probe = Probe(options)
        self._health = Health(self._probe, SERVICES)
        self._dispatcher = self._make_dispatcher(KeyHasher(secrets.keys("request-fingerprint")))
        self._pages = Pages(secrets.keys("page-token"))
        self._token_keys = secrets.keys("resume-token")
        self._handlers = tuple(map(self._dispatcher.handler, self._make_servicers()))
        self._shared_port = shared_port
        self._tls = Tls.of(settings)
        self._server: grpc.aio.Server | None = None
        self._health_server: grpc.aio.Server | None = None
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._looking_after: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        """Begin to serve, and give the port.

        Raises:
            RuntimeError: the address is not to be had.
        """
        self.feed.start()
        self.openings.start()
        if self._notices is not None:
            self.database.listen(self._notices.send)
            self._notices.start()
        await self._probe.start()
        self._begin(self._epochs.run(self._stop))
        self._begin(self._usage.run(self._stop))
        self._begin(self.audit.run(self._stop))
        self._begin(sweeper.run(self.database, self._stop, _retention(self._settings)))
        self._begin(self._reaper.run(self._stop))
        self._looking_after = [
            asyncio.create_task(self._streams.run()),
            asyncio.create_task(self.feed.run()),
            asyncio.create_task(self.openings.run()),
        ]
        if self._tls is not None:
            self._begin(self._tls.run(self._stop))
        return await self._listen()

    async def ended(self) -> None:
        """Return when no more calls are taken, whether or not that was asked for."""
        if self._server is not None:
            await self._server.wait_for_termination()

    async def stop(self, grace: float) -> None:
        """End: readiness turns, streams are told to resume, calls finish within ``grace`` seconds."""
        self._health.drain()
        self._streams.drain()
        self.openings.end(draining)
        self._dispatcher.refuse_new()
        if self._server is not None:
            await farewell(lambda: self._dispatcher.arrived, grace)
            await drain(self._server, lambda: self._dispatcher.in_flight, grace)
        if self._health_server is not None:
            await self._health_server.stop(None)  # until now it told that calls are to go elsewhere
        self._stop.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._looking_after:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._probe.stop()
        if self._notices is not None:
            await asyncio.to_thread(self._notices.stop)
        await asyncio.to_thread(self._passwords.close)
        await asyncio.to_thread(self.database.close)

    async def _listen(self) -> int:
        """Take connections; the servers are made here, because they belong to the running event loop."""
        settings, shared = self._settings, self._shared_port
        self._server = self._make_server()
        port = listening.add_port(self._server, settings.grpc_address, self._tls)
        self._health_server = await listening.start_health(settings, self._health, shared_port=shared)
        await self._server.start()
        return port

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _make_dispatcher(self, hasher: KeyHasher) -> Dispatcher:
        return Dispatcher(
            self.database,
            self.authenticator,
            self._rates,
            self._usage,
            self._streams,
            self.audit,
            hasher,
        )

    def _make_plain_servicers(self) -> list[Any]:
        """Make those that need no setting."""
        paging = [make(self._pages) for make in (DatabaseServicer, GrantServicer, DocumentServicer)]
        return [*paging, QuotaServicer(), ExportServicer(self.database)]

    def _make_servicers(self) -> list[Any]:
        settings = self._settings
        lease_ms = round(settings.lease_duration * 1000)
        return [
            UserServicer(
                self.database,
                self._pages,
                self._passwords,
                self._tokens,
                self._throttle,
                PasswordResets(self.database, self._passwords, self._throttle, self._reset_tokens),
                Registration(
                    enabled=settings.enable_user_registration, role=Role[settings.default_user_role]
                ),
            ),
            ServerServicer(self._pages, credential_rings(settings)),
            *self._make_plain_servicers(),
            JobServicer(
                self._pages,
                self.feed,
                self._token_keys,
                lease_ms=lease_ms,
                fallback_ms=round(settings.remote_fallback * 1000),
            ),
            WorkerServicer(
                self.database, self._pages, self.openings, self.authenticator.recheck, lease_ms=lease_ms
            ),
            ApiKeyServicer(
                self._pages,
                self._hasher,
                self.authenticator.standing_of_key,
                self._rates.allowance,
                scopes=known_scopes(),
                policy=key_policy(settings),
            ),
            AuditServicer(self._pages),
        ]

    def _make_server(self) -> grpc.aio.Server:
        return listening.make_server(
            self._settings, self._handlers, self._health, shared_port=self._shared_port
        )
