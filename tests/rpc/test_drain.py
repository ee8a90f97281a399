"""The farewell of a server: how long calls are still told to go elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from morag_meta.rpc import drain


class _Clock:
    """A clock that sleeping puts on, and calls that come while it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, busy: float) -> None:
        self.now, self.calls, self._busy = 100.0, 0, 100.0 + busy
        monkeypatch.setattr(drain, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(drain, "asyncio", SimpleNamespace(sleep=self._sleep))

    async def _sleep(self, seconds: float) -> None:
        if self.now < self._busy:
            self.calls += 1
        self.now += seconds


@pytest.mark.parametrize(
    ("busy", "longest", "lasts"),
    [
        (0.0, 10.0, 0.1),
        (0.25, 10.0, 0.35),
        (60.0, 10.0, 0.5),
        (60.0, 0.2, 0.2),
        (60.0, 0.0, 0.0),
    ],
    ids=["nobody calls", "some call again", "all go on calling", "a short grace", "no grace"],
)
async def test_a_farewell_lasts_while_calls_come(
    monkeypatch: pytest.MonkeyPatch, busy: float, longest: float, lasts: float
) -> None:
    """It ends when none has come for a tenth of a second, and at its longest whoever calls."""
    clock = _Clock(monkeypatch, busy)
    await drain.farewell(lambda: clock.calls, longest)
    assert clock.now - 100.0 == pytest.approx(lasts, abs=0.11)  # one look more or less
