"""What gives, keeps or takes power proves its caller anew, whatever is still believed of the caller.

Standing is taken away past the service here, which goes on to trust who lost it: as every other process does
for a moment after a revocation. What two of them make of it is in ``tests/users/test_standing_elsewhere.py``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.descriptor_pb2 import MethodOptions

from morag_meta.auth.principal import Role
from morag_meta.db.schema import api_keys, sessions, users
from morag_meta.rpc.access import access_of
from morag_meta.rpc.methods import Kind, mark_of
from moragmeta.v1 import api_keys_pb2
from tests.access.credentials import by_key, by_token, log_in
from tests.access.estate import HASHED, REQUESTS, Estate
from tests.access.stage import BY_NAME, Stage
from tests.access.table import ROWS
from tests.refusals import Refusal, read_details
from tests.service import Service, User

# Rows that a caller could read and write a second before: they give nobody more power than they had. A method
# that is not named here must refuse who lost their standing.
ORDINARY: Final = {
    "UserService": {"UpdateUserSettings"},
    "ServerService": {"CreateServer", "UpdateServer", "DeleteServer"},
    "DatabaseService": {"CreateDatabase", "UpdateDatabase", "DeleteDatabase", "RecountDocuments"},
    "DocumentService": {
        *("CreateDocument", "BatchCreateDocuments", "UpdateDocument", "DeprecateDocument"),
        *("ReinstateDocument", "DeleteDocument", "UndeleteDocument"),
    },
    "JobService": {
        *("CreateJob", "StartJob", "UpdateJobProgress", "CompleteJob", "FailJob", "CancelJob", "RetryJob"),
        "PurgeJobs",
    },
    "WorkerService": {"RegisterWorker", "LeaseJobs", "HeartbeatJob", "ReleaseJob"},
}
CHANGING: Final = {
    name: method
    for name, method in BY_NAME.items()
    if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS and not access_of(method).public
}
POWER: Final = sorted(
    name for name in CHANGING if name.partition(".")[2] not in ORDINARY.get(name.partition(".")[0], ())
)
Change = Callable[[User, str], sa.Update]
LOSSES: Final[dict[str, Change]] = {
    "its key is revoked": lambda person, _: _of(api_keys, person.key_id, revoke_time=_now()),
    "its key is disabled": lambda person, _: _of(api_keys, person.key_id, disable_time=_now()),
    "its key is bound to another place": lambda person, _: _of(
        api_keys, person.key_id, allowed_addresses=["203.0.113.0/24"]
    ),
    "its key is narrowed": lambda person, _: _of(api_keys, person.key_id, database_ids=[person.id]),
    "its user is deactivated": lambda person, _: _of(users, person.id, active=False),
    "its session is ended": lambda _, session_id: _of(sessions, session_id, end_time=_now()),
    "its user is demoted": lambda person, _: _of(users, person.id, role="USER"),
}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _of(table: sa.Table, id: str, **values: Any) -> sa.Update:
    return sa.update(table).where(table.c.id == id).values(values)


@pytest.fixture(scope="module")
def stage(service: Service) -> Stage:
    """Give who makes calls of every kind."""
    return Stage(service)


class Caller:
    """An ADMIN who calls by a key, or by a session, and is known to the service by both."""

    def __init__(self, stage: Stage, *, by_session: bool) -> None:
        self._stage = stage
        self._person = stage.service.new_user(Role.ADMIN, password_hash=HASHED)
        token = log_in(stage.service, self._person)
        self._metadata = by_token(token) if by_session else by_key(self._person.key)
        self._session_id = self.known().session_id

    def known(self) -> Any:
        """Ask the service who calls, which makes it remember that, or shows that it does."""
        me = api_keys_pb2.GetCurrentPrincipalRequest()
        return self._stage.answer(BY_NAME["ApiKeyService.GetCurrentPrincipal"], me, self._metadata)[0]

    def lose(self, loss: str) -> None:
        """Lose standing without the service's hearing of it."""
        with self._stage.service.database.engine.connect() as connection:
            connection.execute(LOSSES[loss](self._person, self._session_id))
            connection.commit()

    def meets(self, name: str, request: Any) -> tuple[str, str]:
        """Call, and give the code and the reason."""
        try:
            self._stage.answer(BY_NAME[name], request, self._metadata)
        except grpc.RpcError as error:
            known: Any = error
            refusal = Refusal()
            read_details(refusal, error)
            return known.code().name, refusal.reason
        return "OK", ""


_MET: Final = {
    "its key is bound to another place": ("PERMISSION_DENIED", "ADDRESS_NOT_ALLOWED"),
    "its key is narrowed": ("PERMISSION_DENIED", "KEY_NARROWED"),
    "absent": ("NOT_FOUND", "RESOURCE_NOT_FOUND"),
    "owner": ("PERMISSION_DENIED", "OWNER_NOT_ALLOWED"),
    "role": ("PERMISSION_DENIED", "ROLE_TOO_LOW"),
}


def _cases() -> list[tuple[str, str]]:
    """Give each method of power with each loss that means something to it."""
    cases = []
    for name in POWER:
        admits_narrowed, by_session = (
            access_of(BY_NAME[name]).admits_narrowed,
            ROWS[name].scopes == ("session",),
        )
        for loss in LOSSES:
            if by_session and "key" in loss:
                continue
            if loss == "its key is narrowed" and admits_narrowed:
                continue  # what such a key may do is in tests/narrowing
            if loss == "its user is demoted" and ROWS[name].cells["other"] == "ok":
                continue  # whoever a role does not keep from it goes on
            cases.append((name, loss))
    return cases


@pytest.mark.parametrize(("name", "loss"), _cases(), ids=lambda each: each.replace(" ", "-"))
def test_who_has_lost_standing_elsewhere_changes_nothing_of_power(stage: Stage, name: str, loss: str) -> None:
    """A caller whom the service still trusts is refused as it stands, or meets what it still may."""
    request = REQUESTS[name](Estate(stage.service, {}))
    caller = Caller(stage, by_session=ROWS[name].scopes == ("session",) or "session" in loss)
    caller.lose(loss)
    cell = ROWS[name].cells["other"] if loss == "its user is demoted" else loss
    assert caller.meets(name, request) == _MET.get(cell, ("UNAUTHENTICATED", "CREDENTIAL_INVALID"))
    caller.known()  # it was trusted all the time, and so refused by the method alone


def test_ordinary_methods_are_the_ones_that_change_something() -> None:
    """What is named as ordinary is there, is no method of power, and so keeps nobody waiting."""
    named = {f"{service}.{method}" for service, methods in ORDINARY.items() for method in methods}
    assert named | set(POWER) == set(CHANGING)
    assert {"ApiKeyService", "GrantService", "QuotaService"}.isdisjoint(ORDINARY)
    assert len(POWER) > 15


@pytest.mark.parametrize("name", sorted(CHANGING))
def test_a_method_says_that_its_caller_must_stand(service: Service, name: str) -> None:
    """Of the methods that are one transaction, those of power are marked, and ordinary ones are not."""
    servicer, _, method = name.partition(".")
    module = BY_NAME[name].containing_service.file.name.rpartition("/")[2].removesuffix(".proto")
    marked = mark_of(getattr(_servicer(module, servicer), method))
    assert marked is not None
    assert marked.kind is not Kind.WRITE or marked.stands == (name in POWER)


def _servicer(module: str, service: str) -> Any:
    found = __import__(f"morag_meta.{module}.servicer", fromlist=["servicer"])
    return getattr(found, f"{service.removesuffix('Service')}Servicer")
