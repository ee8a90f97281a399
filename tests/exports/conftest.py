"""People who log in, as the tests of users make them."""

from __future__ import annotations

from tests.users.conftest import new_person

__all__ = ["new_person"]
