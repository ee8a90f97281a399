"""Turns: lets streams wake a few at a time, so that calls get the event loop in between.

A change that thousands watch would otherwise keep the loop until it was sent to all of them, and gRPC
tells of a call only behind the completions of the sends that were begun before it: a call would wait for
the whole crowd, several times over. What a stream does in its turn is its own matter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

AT_ONCE: Final = 32
"""How many streams may have a turn at the same time: some two milliseconds' work."""
PATIENCE_SECONDS: Final = 0.01
"""How long the others wait for those who do not finish, such as one whose reader takes nothing."""


class Turns:
    """Who sleeps and is to wake, in the order of asking; for the event loop's thread only."""

    def __init__(self, at_once: int = AT_ONCE, patience: float = PATIENCE_SECONDS) -> None:
        """Let ``at_once`` be awake together, and give up on them after ``patience`` seconds."""
        self._at_once = at_once
        self._patience = patience
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._awake = 0
        self._round = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # while somebody waits for a turn
        self._given_up: asyncio.TimerHandle | None = None

    def ask(self, sleeper: asyncio.Future[None]) -> None:
        """Have a future resolved when its turn comes; one that is cancelled meanwhile is passed over."""
        self._sleepers.append(sleeper)
        if self._loop is None:
            self._loop = sleeper.get_loop()
            self._loop.call_soon(self._wake)

    @property
    def round(self) -> int:
        """The number of the turns that are given now, which whoever has one hands to ``end``."""
        return self._round

    def end(self, turn: int) -> None:
        """Hear that somebody sleeps again or is gone; a turn of an earlier round was given up."""
        if turn != self._round or not self._awake:
            return
        self._awake -= 1
        if self._given_up is not None and self._loop is not None and self._awake <= self._at_once // 2:
            self._given_up.cancel()
            self._given_up = None
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        """Give turns as far as there is room."""
        while self._sleepers and self._awake < self._at_once:
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                self._awake += 1
        if self._sleepers and self._loop is not None:
            self._given_up = self._loop.call_later(self._patience, self._give_up)
        else:
            self._loop = None

    def _give_up(self) -> None:
        self._given_up = None
        self._round += 1
        self._awake = 0
        self._wake()
