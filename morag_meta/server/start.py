"""Starting the service: the address, the schema and the first admin once, then one process or several.

What does not live here: serving (``process.py``) and keeping several processes alive
(``supervisor.py``).
"""

from __future__ import annotations

from collections.abc import Callable

from morag_meta.config import Settings
from morag_meta.exits import ExitCode
from morag_meta.server.address import Address, AddressLock
from morag_meta.server.preparation import prepare
from morag_meta.server.process import run
from morag_meta.server.supervisor import supervise


def start(settings: Settings, announce: Callable[[str], None]) -> ExitCode:
    """Serve until a signal; ``announce`` gets the line with the first admin's key, where one is made.

    Raises:
        ConfigurationError: a secret is missing, or the address is none.
        AddressError: somebody else serves the address.
        MigrationError: the schema cannot be reached or brought up to date, or is not current.
        MetaError: the first admin cannot be made.
    """
    settings.require_secrets()
    with AddressLock(Address.parse(settings.grpc_address)) as lock:
        key = prepare(settings)
        if key is not None:
            announce(f"admin API key: {key}")
        if settings.workers == 1:
            return run(settings)
        address = str(Address(lock.address.host, lock.reserve()))
        return supervise(settings.model_copy(update={"grpc_address": address}))
