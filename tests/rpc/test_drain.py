"""The farewell of a server: how long calls are still told to go elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from morag_meta.rpc import drain


class _Clock:
    """A clock that sleeping puts on, and calls that come while it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, busy: float) -> None:
        self.now, self.calls, self.slept, self._busy = 0.0, 0, 0, busy
        monkeypatch.setattr(drain, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(drain, "asyncio", SimpleNamespace(sleep=self._sleep))

    async def _sleep(self, seconds: float) -> None:
        if self.now < self._busy:
            self.calls += 1
        self.now += seconds + 1e-6
        self.slept += 1


@pytest.mark.parametrize(
    ("busy", "longest", "looks"),
    [
        (0.0, 10.0, 1),
        (0.04, 10.0, 2),
        (60.0, 10.0, 3),
        (60.0, 0.1, 2),
        (60.0, 0.0, 0),
    ],
    ids=["nobody calls", "some call again", "all go on calling", "a short grace", "no grace"],
)
async def test_a_farewell_lasts_while_calls_come(
    monkeypatch: pytest.MonkeyPatch, busy: float, longest: float, looks: int
) -> None:
    """It ends when none has come for 0.05 s, and at its longest, three times that, whoever calls."""
    clock = _Clock(monkeypatch, busy)
    await drain.farewell(lambda: clock.calls, longest)
    assert clock.slept == looks
