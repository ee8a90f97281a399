"""Walks of random calls by several principals: the service answers each as the model does.

A walk that fails says its seed and shows its shortest form; ``python -m tests.model`` takes the long ones.
"""

from __future__ import annotations

import random

from tests.backends.databases import Backend
from tests.model.choices import WEIGHTS
from tests.model.contract import METHODS
from tests.model.telling import told, walked
from tests.model.walk import unwalked, wander

_STEPS = 1_500
_SECONDS = 20.0
_NOT_WALKED = {
    *("WatchJob", "WatchJobs", "GetJobStats"),
    *("RequestPasswordReset", "TakePasswordResets", "CreatePasswordReset", "ResetPassword"),
    *("GetUserSettings", "UpdateUserSettings", "GetApiKeyUsage"),
    *("ExportUserData", "ListAuditEvents"),
}
"""Methods with tests of their own; a new method is walked, or stands here."""


def test_every_answer_of_a_walk_is_the_model_s(backend: Backend) -> None:
    """Codes, reasons, contents, lists and rows are those of the model, whoever calls and whatever stands."""
    seed = random.SystemRandom().randrange(10**6)
    with walked(backend) as service:
        walk = wander(service, seed, _STEPS, _SECONDS)
    assert walk.divergence is None, told(backend, seed, walk)
    assert len(walk.steps) > 100


def test_every_method_is_walked_or_named() -> None:
    """No method of the contract is left out by oversight."""
    assert unwalked() == _NOT_WALKED
    assert set(WEIGHTS) == set(METHODS) - _NOT_WALKED
