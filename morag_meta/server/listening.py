"""Where a process listens: its one gRPC server for calls, and another for health alone where one is wanted.

Here is what holds for connections as such: TLS, limits, pings and age. What does not live here: the
certificate's files (``tls.py``), having an address alone (``address.py``), and what a call goes through
(``rpc/dispatch.py``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

import grpc
import structlog

from morag_meta.config.error import ConfigurationError
from morag_meta.config.setting import PREFIX
from morag_meta.config.settings import Settings
from morag_meta.health.servicer import SERVICE as HEALTH_SERVICE
from morag_meta.health.servicer import Health
from morag_meta.rpc.access import SERVICES
from morag_meta.server import reflecting
from morag_meta.server.address import Address, AddressError
from morag_meta.server.tls import Tls

_PENDING: Final = 20_000  # calls that gRPC's core lets wait: thousands of watchers may come back at once
_log = structlog.get_logger(__name__)


def refuse_open_plaintext(settings: Settings, address: Address) -> None:
    """Refuse to send keys over a network in the clear, unless the settings say so.

    Raises:
        ConfigurationError: there is no certificate, and the address is reached from other machines.
        AddressError: the host has no address.
    """
    if settings.tls_cert_file is not None or settings.allow_plaintext:
        return
    if all(ipaddress.ip_address(host.partition("%")[0]).is_loopback for _, host, _ in address.resolve()):
        return
    raise ConfigurationError(
        f"address {address} is reached from other machines, and without TLS every API key can be read on the "
        f"way: set {PREFIX}TLS_CERT_FILE and {PREFIX}TLS_KEY_FILE, or listen on 127.0.0.1, or set "
        f"{PREFIX}ALLOW_PLAINTEXT=true where something else protects the way"
    )


def make_server(
    settings: Settings, handlers: Sequence[grpc.GenericRpcHandler], health: Health, *, shared_port: bool
) -> grpc.aio.Server:
    """Make the server for calls, with the handlers, health and reflection; it has no port yet."""
    server = grpc.aio.server(options=_options(settings, shared_port=shared_port))
    server.add_generic_rpc_handlers(tuple(handlers))
    health.register(server)
    if settings.grpc_reflection:
        reflecting.register(server, (*SERVICES, HEALTH_SERVICE))
    return server


def add_port(server: grpc.aio.Server, address: str, tls: Tls | None) -> int:
    """Have the server listen, by TLS if there is a certificate, and give the port.

    Raises:
        RuntimeError: the address is not to be had.
    """
    if tls is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, tls.credentials())


async def start_health(settings: Settings, health: Health, *, shared_port: bool) -> grpc.aio.Server | None:
    """Serve health alone where the settings say so.

    Processes that share the port of the service share this one too: whoever asks is told by one of those
    that serve calls how that one is.

    Raises:
        AddressError: the address is not to be had.
    """
    if settings.health_address is None:
        return None
    server = grpc.aio.server(options=_options(settings, shared_port=shared_port))
    health.register(server)
    try:
        port = server.add_insecure_port(settings.health_address)
    except RuntimeError:  # gRPC says no more than this
        raise AddressError(f"address {settings.health_address} cannot be listened on") from None
    await server.start()
    _log.info("serving health", address=settings.health_address, port=port)
    return server


def _options(settings: Settings, *, shared_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(shared_port)),
        ("grpc.max_receive_message_length", settings.grpc_max_request_bytes),
        # Between the two limits gRPC refuses at random, so they are one.
        ("grpc.max_metadata_size", settings.grpc_max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.grpc_max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.grpc_max_connection_calls),
        ("grpc.server.max_pending_requests", _PENDING // 2),
        ("grpc.server.max_pending_requests_hard_limit", _PENDING),
        ("grpc.max_connection_age_ms", round(settings.grpc_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(settings.connection_grace * 1000)),
        # A peer that is gone without a word is found within a minute.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", round(settings.grpc_min_ping_interval * 1000)),
        ("grpc.http2.max_ping_strikes", 5),
    ]
