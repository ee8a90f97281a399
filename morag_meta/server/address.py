"""Where a service listens: reading the address, and taking it for this service alone.

Processes of one service share a port by SO_REUSEPORT, with which a second service would share it too
and unnoticed. So the first process of a service holds a lock for its life, and looks for any other
listener before it starts. What does not live here: listening itself (``app.py``).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from morag_meta.config.error import ConfigurationError
from morag_meta.config.setting import PREFIX

_FORM = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>[0-9]{1,5})")
_HIGHEST_PORT = 65_535
_FIX = "give <host>:<port>, as in 127.0.0.1:50051 or [::1]:50051, with"
_ELSEWHERE = "choose another address with"
_VARIABLE = f"{PREFIX}GRPC_ADDRESS"
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - to know them by
_ABSTRACT_NAMES = sys.platform == "linux"
_CAUSES = {
    errno.EADDRINUSE: "is in use by another process; stop it, or",
    errno.EACCES: "needs rights that this user does not have (ports below 1024 mostly do);",
    errno.EADDRNOTAVAIL: "belongs to no network interface of this machine;",
}

SocketAddress = tuple[socket.AddressFamily, str, int]


class AddressError(Exception):
    """The address cannot be listened on; the message names it, the cause and the fix."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; port 0 lets the system choose a free one. ``variable`` is what sets it."""

    host: str
    port: int
    variable: str = field(default=_VARIABLE, compare=False)

    def __str__(self) -> str:
        """Write the address as gRPC takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, variable: str = _VARIABLE) -> Self:
        """Read ``host:port`` or ``[v6]:port``; ``*`` is every interface. ``variable`` is told in errors.

        Raises:
            ConfigurationError: it is neither, or the port is out of range.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None or int(match["port"]) > _HIGHEST_PORT:
            raise ConfigurationError(f"{variable} is {text!r}: {_FIX} {_ways(variable)}")
        host = match["v6"] or match["host"]
        return cls("0.0.0.0" if host == "*" else host, int(match["port"]), variable)  # noqa: S104 - asked for

    @property
    def elsewhere(self) -> str:
        """How to listen on another address."""
        return f"{_ELSEWHERE} {_ways(self.variable)}"

    def resolve(self) -> list[SocketAddress]:
        """Return the socket addresses that the host stands for.

        Raises:
            AddressError: the host has no address.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (socket.gaierror, UnicodeError):
            raise AddressError(
                f"address {self}: the host has no address; {_FIX} {_ways(self.variable)}"
            ) from None
        return sorted({(family, str(name[0]), self.port) for family, *_, name in found})


class AddressLock:
    """The right to serve an address, held until the process ends or ``release`` is called."""

    def __init__(self, address: Address) -> None:
        """Name the address; nothing is taken yet."""
        self.address = address
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Take the address, see ``take``."""
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the address back."""
        self.release()

    def take(self) -> None:
        """Take the lock and see that nobody else listens; port 0 needs neither.

        Raises:
            AddressError: another process has the address, or it cannot be had at all.
        """
        if self.address.port == 0:
            return
        try:
            for resolved in self.address.resolve():
                self._held.callback(_lock(self.address, resolved))
                _try_to_bind(self.address, resolved)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the address back."""
        self._held.close()

    def reserve(self) -> int:
        """Keep the port for processes that share it, and return it; the system's choice for port 0.

        The socket is bound and never listens, so that it gets no connections, yet nobody else gets the
        port while a process of ours is started anew.

        Raises:
            AddressError: the address cannot be had.
        """
        port = self.address.port
        for family, host, _ in self.address.resolve():
            holder = socket.socket(family, socket.SOCK_STREAM)
            self._held.callback(holder.close)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            _bind(self.address, holder, (host, port))
            port = holder.getsockname()[1]
        return port


def _ways(variable: str) -> str:
    return f"--address or {variable}" if variable == _VARIABLE else variable


def _lock(address: Address, resolved: SocketAddress) -> Callable[[], None]:
    """Take the lock of one socket address and return how to give it back."""
    _, host, port = resolved
    name = f"morag-meta/{'*' if host in _EVERYWHERE else host}:{port}"
    taken = AddressError(
        f"address {address} is in use by another morag-meta; stop it, or {address.elsewhere}"
    )
    if _ABSTRACT_NAMES:
        # The kernel frees an abstract name with the process that bound it, however that ended.
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0{name}")
        except OSError:
            holder.close()
            raise taken from None
        return holder.close
    file = (Path(tempfile.gettempdir()) / re.sub(r"[^\w.-]", "_", name)).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise taken from None
    return file.close


def _try_to_bind(address: Address, resolved: SocketAddress) -> None:
    """Bind without sharing, which fails when anybody listens there, and let go again."""
    family, host, port = resolved
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(address, probe, (host, port))


def _bind(address: Address, holder: socket.socket, name: tuple[str, int]) -> None:
    if holder.family == socket.AF_INET6:
        # As gRPC does: one socket for both families, unless only IPv6 is named.
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if name[0] == "::" else 1)
    try:
        holder.bind(name)
    except OSError as error:
        cause = _CAUSES.get(error.errno or 0, f"cannot be listened on ({os.strerror(error.errno or 0)});")
        raise AddressError(f"address {address} {cause} {address.elsewhere}") from None
