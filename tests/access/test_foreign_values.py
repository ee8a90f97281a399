"""What the service gives out for one caller is of no more use to another than what it never gave out.

Tokens of pages, streams, leases and requests, which ``tests/grants`` does not sweep as it does ids. A field
of one of these names in a new method is tried too.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor_pb2 import MethodOptions

from morag_meta.auth.keys import new_key
from moragmeta.v1 import api_keys_pb2, jobs_pb2
from tests.access.credentials import by_key
from tests.access.estate import REQUESTS, Estate
from tests.access.stage import BY_NAME, Stage
from tests.access.table import ROWS
from tests.refusals import Refusal, read_details

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _titles(field: str) -> list[str]:
    """Give the lines of the table whose request has a field, and which a USER may call with a key."""
    return [
        title
        for title, row in ROWS.items()
        if field in BY_NAME[row.method].input_type.fields_by_name
        and row.cells["USER"] == "ok"
        and row.scopes not in (("public",), ("session",))
    ]


class Tenants:
    """Two users with one of everything, and no grant between them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.both = [Estate(stage.service, {}) for _ in range(2)]

    def pairs(self) -> Iterator[tuple[Estate, Estate]]:
        """Give whose the value is and who calls with it, and then the other way round."""
        yield self.both[0], self.both[1]
        yield self.both[1], self.both[0]

    def told(self, title: str, caller: Estate, request: Any) -> tuple[str, str, bool]:
        """Call; give the code, all that is said but for ids, and whether it was said to be a repeat."""
        method = BY_NAME[ROWS[title].method]
        try:
            answer, trailers = self._stage.answer(method, request, by_key(caller.user.key))
        except grpc.RpcError as error:
            refusal, known = Refusal(), _known(error)
            read_details(refusal, error)
            return known.code().name, _UUID.sub("ID", str(refusal)), False
        read = method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        return "OK", str(answer) if read else "", "morag-replayed" in trailers


def _known(error: Any) -> Any:
    return error


@pytest.fixture(scope="module")
def tenants(stage: Stage) -> Tenants:
    """Give two tenants."""
    return Tenants(stage)


def _with(title: str, estate: Estate, **fields: Any) -> Any:
    """Give a valid request of a tenant's own, with some fields set."""
    request = REQUESTS[title](estate)
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def _own_list(title: str, estate: Estate, **fields: Any) -> Any:
    """Give a request for what is one's own without saying whose, so that two tenants ask for the same."""
    request = _with(title, estate, page_size=1, **fields)
    for part in (request, getattr(request, "filter", None)):
        for name in ("owner_id", "grantee_id"):
            if part is not None and name in part.DESCRIPTOR.fields_by_name:
                part.ClearField(name)
    return request


def _like(value: str) -> str:
    """Make up a value that looks like another."""
    return secrets.token_urlsafe(len(value))[: len(value)]


# What makes one more of what a list shows, where the request itself does not.
_MORE: Final[dict[str, Callable[[Estate], Any]]] = {
    "ApiKeyService.ListApiKeys": Estate.key_id,
    "ServerService.ListServers": Estate.server_id,
    "DatabaseService.ListDatabases": Estate.database_id,
    "DatabaseService.ListDatabases/shared": Estate.borrow,
    "GrantService.ListGrants": Estate.lend,
    "GrantService.ListGrants/to": Estate.borrow,
}


@pytest.mark.parametrize("title", _titles("page_token"))
def test_a_page_token_of_another_is_as_one_that_is_made_up(
    stage: Stage, tenants: Tenants, title: str
) -> None:
    """Where one tenant's list goes on says nothing to the other, in the other's own list."""
    for owner, caller in tenants.pairs():
        for _ in range(2):
            _MORE.get(title, REQUESTS[title])(owner)
        request = _own_list(title, owner)
        if title == "JobService.ListJobEvents":
            owner.mine.jobs.StartJob(jobs_pb2.StartJobRequest(id=request.job_id))
        method = BY_NAME[ROWS[title].method]
        answer, _ = stage.answer(method, request, by_key(owner.user.key))
        token = answer.next_page_token
        assert token
        found = tenants.told(title, caller, _own_list(title, caller, page_token=token))
        missing = tenants.told(title, caller, _own_list(title, caller, page_token=_like(token)))
        assert found == missing
        assert found[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("title", _titles("resume_token"))
def test_a_resume_token_of_another_is_as_one_that_is_made_up(
    stage: Stage, tenants: Tenants, title: str
) -> None:
    """Where one tenant's stream has come to says nothing to the other."""
    for owner, caller in tenants.pairs():
        request = _with(title, owner, include_snapshot=False)
        frame, _ = stage.answer(BY_NAME[ROWS[title].method], request, by_key(owner.user.key))
        token = frame.resume_token
        assert token
        found = tenants.told(title, caller, _with(title, caller, resume_token=token))
        missing = tenants.told(title, caller, _with(title, caller, resume_token=_like(token)))
        assert found == missing
        assert found[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("title", _titles("lease_token"))
def test_a_lease_token_of_another_is_as_one_that_is_made_up(tenants: Tenants, title: str) -> None:
    """A lease's token opens neither another tenant's lease nor, to another tenant, the lease itself."""
    for owner, caller in tenants.pairs():
        lease = owner.lease()
        name = "id" if "id" in BY_NAME[ROWS[title].method].input_type.fields_by_name else "job_id"
        found = tenants.told(title, caller, _with(title, caller, lease_token=lease.token))
        missing = tenants.told(title, caller, _with(title, caller, lease_token=_like(lease.token)))
        assert found == missing
        both = {name: lease.job.id, "lease_token": lease.token}
        neither = {name: str(uuid.uuid4()), "lease_token": _like(lease.token)}
        theirs = tenants.told(title, caller, _with(title, caller, **both))
        assert theirs == tenants.told(title, caller, _with(title, caller, **neither))
        assert theirs[0] == "NOT_FOUND"


@pytest.mark.parametrize("title", _titles("request_id"))
def test_a_request_id_of_another_is_as_one_that_nobody_used(tenants: Tenants, title: str) -> None:
    """An id that another has used neither shows what the other did with it nor hinders a call."""
    for owner, caller in tenants.pairs():
        for mine in (False, True):
            request = _with(title, owner, request_id=uuid.uuid4().hex)
            assert tenants.told(title, owner, request)[0] == "OK"
            if mine:
                same = _with(title, caller, request_id=request.request_id)
                assert tenants.told(title, caller, same) == ("OK", "", False)
                continue
            found = tenants.told(title, caller, request)
            request.request_id = uuid.uuid4().hex
            assert found == tenants.told(title, caller, request)


def test_a_key_of_another_is_as_one_that_was_never_made(tenants: Tenants) -> None:
    """Who verifies keys of the own owner learns nothing of anybody else's."""
    for owner, caller in tenants.pairs():
        found, missing = (
            caller.mine.api_keys.VerifyApiKey(api_keys_pb2.VerifyApiKeyRequest(key=key))
            for key in (owner.user.key, new_key())
        )
        assert found == missing
