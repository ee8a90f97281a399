"""A TCP proxy before a database server, which loses what a test wants lost.

It knows nothing of the protocols but that the text of a statement is found in what a client sends.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Self

import sqlalchemy as sa


class Proxy:
    """Passes bytes between clients and a server on the loopback until it is told otherwise."""

    def __init__(self, url: str) -> None:
        """Stand before the server of a database URL; ``url`` is then the one that leads through here."""
        target = sa.make_url(url)
        self._target = (target.host or "", target.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = target.set(port=port).render_as_string(hide_password=False)
        self.sent: list[bytes] = []
        """What clients sent, piece by piece: a request of a database's driver is one piece."""
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._pattern = b""
        self._stall_pattern = b""
        self._forward = False
        self._refuse_next = False
        self._closed = False
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    def cut_at(self, pattern: bytes, *, arrives: bool, then_refuse: bool = False) -> None:
        """Cut the next connection whose client sends ``pattern``: once.

        With ``arrives`` the server gets it and its answer is lost; without, it never gets there. With
        ``then_refuse`` nobody is let in afterwards.
        """
        with self._lock:
            self._pattern, self._forward, self._refuse_next = pattern, arrives, then_refuse

    def stall_at(self, pattern: bytes) -> None:
        """Pass nothing on any more from where a client sends ``pattern``."""
        with self._lock:
            self._stall_pattern = pattern

    def stall(self) -> None:
        """Pass nothing on, in silence, as a network does that swallows packets."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass everything on again."""
        self._flowing.set()

    def refuse(self, *, refusing: bool = True) -> None:
        """Hang up on new clients at once, or do not any more."""
        self._refusing = refusing

    def cut(self) -> None:
        """Hang up on every client."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(pair)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        with self._lock:
            return len(self._pairs)

    def close(self) -> None:
        """End."""
        self._closed = True
        self.flow()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        """Stand there."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                if not select.select([self._listener], [], [], 0.1)[0]:
                    continue
                client, _ = self._listener.accept()
            except (OSError, ValueError):
                return
            self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(self._target, 5)
        except OSError:
            client.close()
            return
        pair = (client, server)
        with self._lock:
            self._pairs.append(pair)
        thread = threading.Thread(target=self._pump, args=(pair,), name="proxy-pump", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _pump(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        with contextlib.suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([client, server], [], [], 0.2)
                self._flowing.wait()
                for source in ready:
                    data = source.recv(65_536)
                    if not data or (source is client and self._is_cut(client, server, data)):
                        raise ConnectionAbortedError
                    self._flowing.wait()
                    (server if source is client else client).sendall(data)
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
        _close(pair)

    def _is_cut(self, client: socket.socket, server: socket.socket, data: bytes) -> bool:
        """Say whether this is where to cut, and lose what is to be lost."""
        self.sent.append(data)
        with self._lock:
            if self._stall_pattern and self._stall_pattern in data:
                self._stall_pattern = b""
                self._flowing.clear()
            if not self._pattern or self._pattern not in data:
                return False
            self._pattern, forward = b"", self._forward
            self._refusing = self._refusing or self._refuse_next
        if forward:
            server.sendall(data)
            server.recv(65_536)  # done, for all that the server knows
        return True


def _close(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
