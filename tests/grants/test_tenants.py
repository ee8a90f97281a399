"""Two tenants: every id of one in every field for an id of every method, called by the other.

Without a grant each answer is the one for an id that does not exist. With one, what it opens answers as the
table below says, and everything else as before.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

import pytest

from tests.access.credentials import log_in
from tests.grants.scene import READER, WRITER, Tenant, tenant
from tests.grants.sweep import SWEPT, Caller, ids_of, is_id, texts
from tests.rpc.messages import METHODS
from tests.service import Service, User

OPEN: Final = "OK, and shows it"
DENIED: Final = "PERMISSION_DENIED"

# (method, field, what the id is of): the answer with a READER's grant, and with a WRITER's.
WITH_A_GRANT: Final[dict[tuple[str, str, str], tuple[str, str]]] = {
    ("DatabaseService.GetDatabase", "id", "database"): (OPEN, OPEN),
    ("ApiKeyService.CreateApiKey", "api_key.database_ids", "database"): ("OK", "OK"),
    ("DatabaseService.UpdateDatabase", "database.id", "database"): (DENIED, DENIED),
    ("DatabaseService.DeleteDatabase", "id", "database"): (DENIED, DENIED),
    ("DatabaseService.RecountDocuments", "id", "database"): (DENIED, DENIED),
    ("GrantService.GrantAccess", "database_id", "database"): (DENIED, DENIED),
    ("GrantService.RevokeAccess", "database_id", "database"): (DENIED, DENIED),
    ("GrantService.ListGrants", "database_id", "database"): (DENIED, DENIED),
    ("DocumentService.CreateDocument", "document.database_id", "database"): (DENIED, "OK"),
    ("DocumentService.BatchCreateDocuments", "requests.document.database_id", "database"): (DENIED, "OK"),
    ("DocumentService.ListDocuments", "database_id", "database"): (OPEN, OPEN),
    ("DocumentService.GetDocument", "id", "document"): (OPEN, OPEN),
    ("DocumentService.BatchGetDocuments", "ids", "document"): (OPEN, OPEN),
    ("DocumentService.UpdateDocument", "document.id", "document"): (DENIED, "OK"),
    ("DocumentService.DeprecateDocument", "id", "document"): (DENIED, "FAILED_PRECONDITION"),
    ("DocumentService.ReinstateDocument", "id", "document"): (DENIED, "FAILED_PRECONDITION"),
    ("DocumentService.DeleteDocument", "id", "document"): (DENIED, "OK"),
    ("DocumentService.UndeleteDocument", "id", "document"): (DENIED, "ALREADY_EXISTS"),
    ("JobService.CreateJob", "job.document_id", "document"): (DENIED, "OK"),
    ("JobService.GetJob", "id", "job"): (OPEN, OPEN),
    ("JobService.ListJobEvents", "job_id", "job"): (OPEN, OPEN),
    ("JobService.WatchJob", "job_id", "job"): (OPEN, OPEN),
    ("JobService.CancelJob", "id", "job"): (DENIED, "OK"),
    ("JobService.RetryJob", "id", "job"): (DENIED, "FAILED_PRECONDITION"),
    ("JobService.ListJobs", "filter.database_id", "database"): (OPEN, OPEN),
    ("JobService.GetJobStats", "filter.database_id", "database"): (OPEN, OPEN),
    ("JobService.WatchJobs", "filter.database_id", "database"): (OPEN, OPEN),
}
# Whether a user exists is told to who shares a database with that user, and cannot be kept from them.
# Texts that name nothing of another's: what callers write, choose from, and look for.
PLAIN: Final = {
    *(
        "name",
        "description",
        "email",
        "avatar",
        "text",
        "reason",
        "summary",
        "phase",
        "error",
        "type",
        "kind",
    ),
    *("kinds", "types", "document_types", "host", "username", "default_database", "default_collection"),
    *("source", "external_id", "content_hash", "name_contains", "order_by", "language", "scopes", "scope"),
    *("address", "allowed_addresses", "event", "outcome"),
    "etag",  # the number of a revision, and says not of what
}
# What is given out for one caller; tests/access/test_foreign_values.py tries it with others.
SEALED: Final = {
    *("page_token", "resume_token", "lease_token", "request_id", "key"),
    *("password", "current_password", "new_password", "refresh_token", "token", "api_key"),
}
TOLD: Final = {("GrantService.GrantAccess", "grantee_id", "user"): "OK"}


def _fresh(owner: Tenant, ids: dict[str, str], kind: str) -> str:
    """Give a new thing of a kind that calls by a grant change, or the one that there is."""
    if kind == "document":
        return owner.document().id
    return owner.job(owner.document().id).id if kind == "job" else ids[kind]


def _sweep(service: Service, owner: Tenant, other: Tenant, level: int | None = None) -> list[str]:
    """Call every method with every id; say which answers are not the expected ones."""
    caller, ids, wrong = Caller(other, log_in(service, other.user)), ids_of(service, owner), []
    for name, path, method in SWEPT:
        field = ".".join(path)
        missing = caller.answer(method, path, str(uuid.uuid4()))
        for kind in ids:
            key = (name, field, kind)
            if level is None or key not in WITH_A_GRANT:
                found = caller.answer(method, path, ids[kind])
                expected = (TOLD[key], found[1]) if key in TOLD else missing
                right = found == expected
            else:
                found = caller.answer(method, path, _fresh(owner, ids, kind))
                wanted = WITH_A_GRANT[key][level]
                right = found[0] == wanted.partition(",")[0] and (wanted != OPEN or found != missing)
                expected = (wanted, "")
            if not right:
                wrong.append(f"{name} with {kind} in {field}: {found}, expected {expected}")
    return sorted(wrong)


@pytest.fixture
def bystander(service: Service, owner: Tenant) -> User:
    """Share both databases of the owner with somebody else, which opens nothing to the other tenant."""
    somebody = service.new_user()
    for database_id in (owner.shared, owner.private):
        owner.give(somebody, WRITER, database_id=database_id)
    return somebody


@pytest.fixture
def other(service: Service) -> Tenant:
    """Give another tenant, who has one of everything as well."""
    return tenant(service)


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("backward", [False, True])
def test_what_is_not_the_callers_is_as_if_it_did_not_exist(
    service: Service, owner: Tenant, other: Tenant, backward: bool
) -> None:
    """Without a grant no id of one tenant makes a difference in any field of any method to the other."""
    assert _sweep(service, *((other, owner) if backward else (owner, other))) == []


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("level", [READER, WRITER])
def test_a_grant_opens_what_it_says_and_no_more(
    service: Service, owner: Tenant, other: Tenant, level: Any
) -> None:
    """With a grant the answers are those of the table; all other ids of the owner still do not exist."""
    owner.give(other.user, level)
    assert _sweep(service, owner, other, [READER, WRITER].index(level)) == []


def test_a_grant_opens_nothing_to_who_gave_it(service: Service, owner: Tenant, other: Tenant) -> None:
    """Nothing of the grantee's exists for the owner of what is shared."""
    owner.give(other.user, WRITER, database_id=owner.private)
    assert _sweep(service, other, owner) == []


@pytest.mark.usefixtures("bystander")
def test_a_revoked_grant_leaves_nothing_open(service: Service, owner: Tenant, other: Tenant) -> None:
    """After the grant is revoked the owner's ids are again as if they did not exist."""
    owner.give(other.user, WRITER)
    written = owner.document(by=other.user)
    owner.revoke(other.user)
    assert _sweep(service, owner, other) == []
    assert written.owner_id == owner.user.id


def test_the_sweep_reaches_every_method_that_names_an_id() -> None:
    """The table names real fields, and the methods that take no id are known."""
    assert {(name, field) for name, field, _ in WITH_A_GRANT} <= {
        (name, ".".join(path)) for name, path, _ in SWEPT
    }
    without = {name.removeprefix("moragmeta.v1.") for name in METHODS} - {name for name, _, _ in SWEPT}
    assert without == {
        "ApiKeyService.GetCurrentPrincipal",
        "ApiKeyService.VerifyApiKey",
        "UserService.RegisterUser",
        "UserService.Login",
        "UserService.RefreshToken",
        "UserService.Logout",
        "UserService.ListUsers",
        "UserService.ChangePassword",
        "UserService.RequestPasswordReset",
        "UserService.ResetPassword",
        "UserService.CreatePasswordReset",
        "UserService.TakePasswordResets",
    }


def test_every_text_of_a_request_is_an_id_or_known_to_be_none() -> None:
    """A new field of a request is swept where its name or format says that it holds ids, or stands here."""
    unknown = {
        f"{title.removeprefix('moragmeta.v1.')} {'.'.join(path)}"
        for title, method in METHODS.items()
        for path, field in texts(method.input_type)
        if not is_id(field) and field.name not in PLAIN | SEALED
    }
    assert unknown == set()
