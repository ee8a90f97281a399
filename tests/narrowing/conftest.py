"""Who takes part in the tests of narrowed keys: a user with things inside and outside, and the keys."""

from __future__ import annotations

import pytest

from tests.grants.scene import tenant
from tests.narrowing.scene import House
from tests.service import Service


@pytest.fixture
def house(service: Service) -> House:
    """Give a user with two servers, and databases on both."""
    return House.of(service, tenant(service))


@pytest.fixture(params=["database", "server", "both"])
def way(request: pytest.FixtureRequest) -> str:
    """Give each way in which a key can be narrowed to one and the same database."""
    return str(request.param)
