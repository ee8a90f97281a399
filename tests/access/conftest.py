"""A server of the matrix's own, which takes as many calls without a credential as the matrix makes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.access.stage import Stage
from tests.backends.databases import Backend
from tests.service import serving


@pytest.fixture(scope="package")
def stage(backend: Backend) -> Iterator[Stage]:
    """Serve, and make everybody."""
    with serving(backend, public_rate=0, login_failures=0, login_account_failures=0) as service:
        yield Stage(service)
