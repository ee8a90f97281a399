"""Whoever takes part in the tests of grants."""

from __future__ import annotations

import pytest

from tests.grants.scene import Tenant, tenant
from tests.service import Service, User


@pytest.fixture
def owner(service: Service) -> Tenant:
    """Give a user with a database to share."""
    return tenant(service)


@pytest.fixture
def friend(service: Service) -> User:
    """Give a user with whom it is shared."""
    return service.new_user()
