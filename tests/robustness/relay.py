"""A process that stands before a server and passes bytes on, until it is told otherwise.

It does what ``tests/backends/proxy.py`` does inside a test: here in a process and a loop of its own, because
all of a run's traffic goes through it, and so that what it costs does not slow down the clients.
``python -m tests.robustness.relay`` is that process; :class:`Relay` is the side of those who give orders.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

_ROOT = Path(__file__).parents[2]
_PIECE = 262_144
_PATIENCE = 5.0
"""Seconds that a server may take to let the relay in, or to answer what is cut."""


class Relay:
    """A relay before the server of a URL; ``url`` leads through it."""

    def __init__(self, url: str) -> None:
        """Start the process.

        Raises:
            ValueError: the URL names no host and port.
        """
        target = sa.make_url(url)
        if not target.host or not target.port:
            raise ValueError("a relay stands before a host and a port")
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = listener.getsockname()[1]
        self.url = target.set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)
        ours, theirs = socket.socketpair()
        orders = json.dumps([target.host, target.port, listener.fileno(), theirs.fileno()])
        command = [sys.executable, "-m", "tests.robustness.relay", orders]
        self._process = subprocess.Popen(
            command, cwd=_ROOT, pass_fds=(listener.fileno(), theirs.fileno()), stdin=subprocess.DEVNULL
        )
        listener.close()
        theirs.close()
        self._orders = ours.makefile("rw")
        self._ordering = threading.Lock()  # a fault beside another gives orders too
        ours.close()

    def _order(self, name: str, *given: object) -> Any:
        with self._ordering:
            self._orders.write(json.dumps([name, *given]) + "\n")
            self._orders.flush()
            return json.loads(self._orders.readline())

    def cut_at(self, pattern: bytes, *, arrives: bool, then_refuse: bool = False) -> None:
        """Cut the next connection whose client sends ``pattern``: once; an empty one cuts none.

        With ``arrives`` the server gets it and its answer is lost; without, it never gets there. With
        ``then_refuse`` nobody is let in afterwards.
        """
        self._order("cut_at", pattern.hex(), arrives, then_refuse)

    def stall_at(self, pattern: bytes, *, arrives: bool = False) -> None:
        """Pass nothing on any more from where a client sends ``pattern``; with ``arrives``, that yet."""
        self._order("stall_at", pattern.hex(), arrives)

    def stall(self) -> None:
        """Pass nothing on, in silence, as a network does that swallows packets."""
        self._order("stall")

    def flow(self) -> None:
        """Pass everything on again, and forget where to stall."""
        self._order("flow")

    def refuse(self, *, refusing: bool = True) -> None:
        """Hang up on new clients at once, or do not any more."""
        self._order("refuse", refusing)

    def cut(self) -> None:
        """Hang up on every client."""
        self._order("cut")

    @property
    def answers(self) -> int:
        """How many pieces the server has sent so far."""
        return int(self._order("count"))

    @property
    def caught(self) -> int:
        """The port of the client that sent what was cut or stalled at; 0 while nobody has."""
        return int(self._order("tell_caught"))

    def close(self) -> None:
        """End."""
        self._orders.close()
        self._process.wait()


@dataclass(slots=True)
class _End:
    """One of the two sockets of a connection."""

    socket: socket.socket
    is_client: bool
    other: _End | None = None
    unsent: bytes = field(default=b"")
    """What this end has not taken yet."""


class _Loop:
    """What the process does."""

    def __init__(self, host: str, port: int, listener: socket.socket, orders: socket.socket) -> None:
        self._target = (host, port)
        self._listener = listener
        self._orders = orders.makefile("rw")
        self._ends: dict[int, _End] = {}
        self._data = select.epoll()
        self._all = select.epoll()
        for watched in (listener.fileno(), orders.fileno(), self._data.fileno()):
            self._all.register(watched, select.EPOLLIN)
        self._orders_at, self._listener_at = orders.fileno(), listener.fileno()
        self._pattern = self._stall_pattern = b""
        self._arrives = self._refuse_next = self._refusing = False
        self._count = self._caught = 0

    def run(self) -> None:
        """Pass on and obey until nobody gives orders any more."""
        while True:
            for place, _ in self._all.poll():
                if place == self._orders_at:
                    line = self._orders.readline()
                    if not line:
                        return
                    self._obey(*json.loads(line))
                elif place == self._listener_at:
                    self._let_in()
                else:
                    self._pass_on_all()

    def _obey(self, name: str, *given: Any) -> None:
        answer = getattr(self, name)(*given)
        self._orders.write(json.dumps(answer) + "\n")
        self._orders.flush()

    def cut_at(self, pattern: str, arrives: bool, then_refuse: bool) -> None:
        self._pattern, self._arrives, self._refuse_next = bytes.fromhex(pattern), arrives, then_refuse
        self._caught = 0

    def stall_at(self, pattern: str, arrives: bool) -> None:
        self._stall_pattern, self._arrives, self._caught = bytes.fromhex(pattern), arrives, 0

    def stall(self) -> None:
        self._all.modify(self._data.fileno(), 0)

    def flow(self) -> None:
        self._stall_pattern = b""
        self._all.modify(self._data.fileno(), select.EPOLLIN)

    def refuse(self, refusing: bool) -> None:
        self._refusing = refusing

    def cut(self) -> None:
        for end in list(self._ends.values()):
            self._hang_up(end)

    def count(self) -> int:
        return self._count

    def tell_caught(self) -> int:
        return self._caught

    def _let_in(self) -> None:
        client, _ = self._listener.accept()
        try:
            if self._refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(self._target, _PATIENCE)
        except OSError:
            client.close()
            return
        one, two = _End(client, is_client=True), _End(server, is_client=False)
        one.other, two.other = two, one
        for end in (one, two):
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.socket.fileno()] = end
            self._data.register(end.socket.fileno(), select.EPOLLIN)

    def _pass_on_all(self) -> None:
        """Pass on what is ready, until the stalling begins."""
        for place, what in self._data.poll(0):
            end = self._ends.get(place)
            if end is None or end.other is None:
                continue
            try:
                if what & select.EPOLLOUT:
                    self._give(end, b"")
                if what & ~select.EPOLLOUT and not self._pass_on(end, end.other):
                    return
            except OSError:
                self._hang_up(end)

    def _pass_on(self, source: _End, target: _End) -> bool:
        """Pass on one piece; say whether to go on."""
        data = source.socket.recv(_PIECE)
        if not data:
            raise ConnectionAbortedError
        if not source.is_client:
            self._count += 1
        else:
            if self._pattern and self._pattern in data:
                self._cut_here(source, target, data)
            if self._stall_pattern and self._stall_pattern in data:
                self._stall_pattern = b""
                self._caught = source.socket.getpeername()[1]
                self._stall_here(target, data)
                return False
        self._give(target, data)
        return True

    def _stall_here(self, server: _End, data: bytes) -> None:
        self.stall()
        if self._arrives:
            self._give(server, data)
        else:
            server.unsent += data
            self._turn(server)

    def _give(self, target: _End, data: bytes) -> None:
        """Send what the target takes now; while it takes no more, nothing is read for it."""
        waited, data = bool(target.unsent), target.unsent + data
        try:
            target.unsent = data[target.socket.send(data) :]
        except BlockingIOError:
            target.unsent = data
        if waited is not bool(target.unsent):
            self._turn(target)

    def _turn(self, end: _End) -> None:
        """Wait until there is something to read for each side, or room to write what it has not taken."""
        for one, two in ((end, end.other), (end.other, end)):
            if one is not None and two is not None:
                mask = (select.EPOLLOUT if one.unsent else 0) | (0 if two.unsent else select.EPOLLIN)
                self._data.modify(one.socket.fileno(), mask)

    def _cut_here(self, client: _End, server: _End, data: bytes) -> None:
        """Lose what is to be lost."""
        self._pattern, self._caught = b"", client.socket.getpeername()[1]
        self._refusing = self._refusing or self._refuse_next
        if self._arrives:
            server.socket.settimeout(_PATIENCE)
            server.socket.sendall(data)
            server.socket.recv(_PIECE)  # done, for all that the server knows
        raise ConnectionAbortedError

    def _hang_up(self, end: _End) -> None:
        for one in (end, end.other):
            if one is None or self._ends.pop(one.socket.fileno(), None) is None:
                continue
            with contextlib.suppress(OSError):
                one.socket.shutdown(socket.SHUT_RDWR)
            one.socket.close()


def main(host: str, port: int, listener: int, orders: int) -> None:
    """Relay until the orders' other side is closed."""
    with contextlib.suppress(KeyboardInterrupt):
        _Loop(host, port, socket.socket(fileno=listener), socket.socket(fileno=orders)).run()


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
