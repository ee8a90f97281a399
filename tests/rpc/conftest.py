"""The trial service, for tests of what surrounds every call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rpc.trial import Trial, trying


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Serve the trial service on SQLite; what it does is each test's choice."""
    folder = tmp_path_factory.mktemp("trial")
    with trying(f"sqlite:///{folder / 'trial.db'}") as started:
        yield started
