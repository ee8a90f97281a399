"""Starting the service: the address, the schema and the first admin once, then one process or several.

What does not live here: serving (``process.py``) and keeping several processes alive
(``supervisor.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from morag_meta.config.error import ConfigurationError
from morag_meta.config.loading import require_secrets
from morag_meta.config.setting import PREFIX
from morag_meta.config.settings import Settings
from morag_meta.exits import ExitCode
from morag_meta.server.address import Address, AddressLock
from morag_meta.server.listening import refuse_open_plaintext
from morag_meta.server.preparation import prepare
from morag_meta.server.process import run
from morag_meta.server.supervisor import supervise
from morag_meta.server.tls import Certified, TlsFiles


def start(settings: Settings, announce: Callable[[str], None], *, accept_lost: bool = False) -> ExitCode:
    """Serve until a signal; ``announce`` gets the line with the first admin's key, where one is made.

    With ``accept_lost`` it starts although the secrets read nothing of what the database keeps.

    Raises:
        ConfigurationError: a secret is missing or reads nothing of what it should, an address is none, a
            TLS file cannot be used, or there is no TLS where there must be.
        AddressError: somebody else serves the address.
        MigrationError: the schema cannot be reached or brought up to date, or is not current.
        MetaError: the first admin cannot be made.
    """
    require_secrets(settings)
    refuse_open_plaintext(settings, Address.parse(settings.grpc_address))
    files = TlsFiles.of(settings)
    if files is not None:
        Certified.read(files)
    with contextlib.ExitStack() as held:
        locks = {name: held.enter_context(AddressLock(each)) for name, each in _addresses(settings).items()}
        key = prepare(settings, accept_lost=accept_lost)
        if key is not None:
            announce(f"admin API key: {key}")
        if settings.workers == 1:
            return run(settings)
        fixed = {name: str(Address(lock.address.host, lock.reserve())) for name, lock in locks.items()}
        return supervise(settings.model_copy(update=fixed))


def _addresses(settings: Settings) -> dict[str, Address]:
    """Give the addresses to listen on, by the names of their settings."""
    found = {"grpc_address": Address.parse(settings.grpc_address)}
    if settings.health_address is not None:
        variable = f"{PREFIX}HEALTH_ADDRESS"
        health = found["health_address"] = Address.parse(settings.health_address, variable)
        if health.port and health == found["grpc_address"]:
            raise ConfigurationError(f"{variable} is the service's own address: give another port")
    return found
