"""Who was away while many events happened comes back with an old token, and sees each of them once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.backends.databases import chosen_kinds
from tests.robustness.away import come_back
from tests.robustness.violations import shown

EVENTS = int(os.environ.get("MORAG_TEST_AWAY", "400"))


@pytest.mark.parametrize("kind", chosen_kinds())
def test_who_comes_back_sees_every_event_once(kind: str, tmp_path: Path) -> None:
    """The token that was got before anything happened brings everything, and faster than it happened."""
    back = come_back(kind, tmp_path, EVENTS, seed=7)
    assert shown(back.violations) == ""
    assert back.events >= EVENTS
    assert back.seconds < 10 + EVENTS / 500
