"""Who may call what, written by hand from the words of the docs and the protos: a line for each RPC.

Nothing here is read from what the service declares or enforces; that the two agree is what the matrix tests.

The columns are who calls: a VIEWER and a USER on what is their own, another USER, one with a READER's and
one with a WRITER's grant on the USER's databases, and an ADMIN, all on what is the USER's. Each of them calls
with an API key of every scope and with a session.

Cells:
    ok       it is done, and answers something
    nothing  OK, and what is answered is empty, or says that there is no such thing
    absent   NOT_FOUND (RESOURCE_NOT_FOUND)
    role     PERMISSION_DENIED (ROLE_TOO_LOW)
    grant    PERMISSION_DENIED (GRANT_TOO_LOW)
    owner    PERMISSION_DENIED (OWNER_NOT_ALLOWED)

The scopes come last, of which a key needs one; ``none`` where a key needs none, ``session`` where no key
will do, so that it meets SESSION_REQUIRED, and ``public`` where no credential is asked for or looked at.
Behind ``self`` a key without the scope finds nothing but itself, and so this request is ``absent`` to it.
A scope in parentheses opens the RPC but not this request: PERMISSION_DENIED (FILTER_NOT_ALLOWED).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CALLERS: Final = ("VIEWER", "USER", "other", "READER", "WRITER", "ADMIN")
_SHORT: Final = {
    "work": ("jobs:work", "jobs:work:all"),
    "(work)": ("(jobs:work)", "(jobs:work:all)"),
    "verify": ("api_keys:verify", "api_keys:verify:all"),
}

_WITHOUT_SCOPE: Final = {"none": "ok", "public": "ok", "session": "session"}
_TABLE: Final = """
                          VIEWER   USER     other    READER   WRITER   ADMIN    scopes
UserService
  RegisterUser            ok       ok       ok       ok       ok       ok       public
  Login                   ok       ok       ok       ok       ok       ok       public
  RefreshToken            ok       ok       ok       ok       ok       ok       public
  RequestPasswordReset    ok       ok       ok       ok       ok       ok       public
  ResetPassword           ok       ok       ok       ok       ok       ok       public
  Logout                  ok       ok       ok       ok       ok       ok       session
  ChangePassword          ok       ok       ok       ok       ok       ok       session
  ListSessions            ok       ok       owner    owner    owner    ok       users:read
  EndSession              ok       ok       absent   absent   absent   ok       users:write
  GetUser                 ok       ok       absent   absent   absent   ok       users:read
  ListUsers               role     role     role     role     role     ok       users:read
  UpdateUser              role     ok       absent   absent   absent   ok       users:write
  TakePasswordResets      role     role     role     role     role     ok       users:reset
  CreatePasswordReset     role     role     role     role     role     ok       users:reset
  SetUserRole             role     role     role     role     role     ok       users:write
  DeactivateUser          role     role     role     role     role     ok       users:write
  ReactivateUser          role     role     role     role     role     ok       users:write
  DeleteUser              role     role     role     role     role     ok       users:write
  GetUserSettings         ok       ok       absent   absent   absent   ok       users:read
  UpdateUserSettings      role     ok       absent   absent   absent   ok       users:write
ApiKeyService
  CreateApiKey            role     ok       owner    owner    owner    ok       api_keys:write
  GetApiKey               ok       ok       absent   absent   absent   ok       api_keys:read
  ListApiKeys             ok       ok       owner    owner    owner    ok       api_keys:read
  UpdateApiKey            role     ok       absent   absent   absent   ok       api_keys:write
  DeleteApiKey            role     ok       absent   absent   absent   ok       api_keys:write
  RevokeApiKey            ok       ok       absent   absent   absent   ok       api_keys:write self
  DisableApiKey           ok       ok       absent   absent   absent   ok       api_keys:write self
  EnableApiKey            role     ok       absent   absent   absent   ok       api_keys:write
  RotateApiKey            role     ok       absent   absent   absent   ok       api_keys:write
  VerifyApiKey            ok       ok       nothing  nothing  nothing  ok       verify
  GetApiKeyUsage          ok       ok       absent   absent   absent   ok       api_keys:read
  GetCurrentPrincipal     ok       ok       ok       ok       ok       ok       none
ServerService
  CreateServer            role     ok       owner    owner    owner    ok       servers:write
  GetServer               ok       ok       absent   absent   absent   ok       servers:read
  ListServers             ok       ok       owner    owner    owner    ok       servers:read
  UpdateServer            role     ok       absent   absent   absent   ok       servers:write
  DeleteServer            role     ok       absent   absent   absent   ok       servers:write
DatabaseService
  CreateDatabase          role     ok       owner    owner    owner    ok       databases:write
  CreateDatabase/on       role     ok       absent   absent   absent   absent   databases:write
  GetDatabase             ok       ok       absent   ok       ok       ok       databases:read
  ListDatabases           ok       ok       owner    owner    owner    ok       databases:read
  ListDatabases/shared    ok       ok       nothing  ok       ok       nothing  databases:read
  UpdateDatabase          role     ok       absent   grant    grant    ok       databases:write
  DeleteDatabase          role     ok       absent   grant    grant    ok       databases:write
  RecountDocuments        role     ok       absent   grant    grant    ok       databases:write
GrantService
  GrantAccess             role     ok       absent   grant    grant    ok       grants:write
  RevokeAccess            ok       ok       absent   grant    grant    ok       grants:write
  ListGrants              ok       ok       absent   grant    grant    ok       grants:read
  ListGrants/to           ok       ok       owner    owner    owner    ok       grants:read
DocumentService
  CreateDocument          role     ok       owner    owner    owner    ok       documents:write
  CreateDocument/in       role     ok       absent   grant    ok       absent   documents:write
  BatchCreateDocuments    role     ok       owner    owner    owner    ok       documents:write
  BatchCreateDocuments/in role     ok       absent   grant    ok       absent   documents:write
  GetDocument             ok       ok       absent   ok       ok       ok       documents:read
  BatchGetDocuments       ok       ok       nothing  ok       ok       ok       documents:read
  ListDocuments           ok       ok       owner    owner    owner    ok       documents:read
  ListDocuments/in        ok       ok       nothing  ok       ok       nothing  documents:read
  UpdateDocument          role     ok       absent   grant    ok       ok       documents:write
  DeprecateDocument       role     ok       absent   grant    ok       ok       documents:write
  ReinstateDocument       role     ok       absent   grant    ok       ok       documents:write
  DeleteDocument          role     ok       absent   grant    ok       ok       documents:write
  UndeleteDocument        role     ok       absent   grant    ok       ok       documents:write
JobService
  CreateJob               role     ok       owner    owner    owner    ok       jobs:write
  CreateJob/of            role     ok       absent   grant    ok       absent   jobs:write
  StartJob                role     ok       absent   absent   absent   ok       jobs:write
  UpdateJobProgress       role     ok       absent   absent   absent   ok       jobs:write work
  CompleteJob             role     ok       absent   absent   absent   ok       jobs:write work
  FailJob                 role     ok       absent   absent   absent   ok       jobs:write work
  CancelJob               role     ok       absent   grant    ok       ok       jobs:write
  PurgeJobs               role     ok       owner    owner    owner    ok       jobs:write
  PurgeJobs/in            role     ok       nothing  nothing  nothing  nothing  jobs:write
  RetryJob                role     ok       absent   grant    ok       ok       jobs:write
  GetJob                  ok       ok       absent   ok       ok       ok       jobs:read
  ListJobs                ok       ok       owner    owner    owner    ok       jobs:read
  ListJobs/in             ok       ok       nothing  ok       ok       nothing  jobs:read
  GetJobStats             ok       ok       owner    owner    owner    ok       jobs:read
  GetJobStats/in          ok       ok       nothing  ok       ok       nothing  jobs:read
  ListJobEvents           ok       ok       absent   ok       ok       ok       jobs:read
  WatchJob                ok       ok       absent   ok       ok       ok       jobs:read
  WatchJobs               ok       ok       owner    owner    owner    ok       jobs:read (work)
  WatchJobs/in            ok       ok       nothing  ok       ok       nothing  jobs:read (work)
  WatchJobs/by            ok       ok       nothing  nothing  nothing  nothing  jobs:read work
WorkerService
  RegisterWorker          role     ok       ok       ok       ok       ok       work
  LeaseJobs               role     ok       absent   absent   absent   absent   work
  HeartbeatJob            role     ok       absent   absent   absent   ok       jobs:write work
  ReleaseJob              role     ok       absent   absent   absent   ok       jobs:write work
  GetWorker               ok       ok       absent   absent   absent   ok       jobs:read work
  ListWorkers             ok       ok       owner    owner    owner    ok       jobs:read work
QuotaService
  GetQuotas               ok       ok       absent   absent   absent   ok       quotas:read
  SetQuotas               role     role     role     role     role     ok       quotas:write
  GetUsage                ok       ok       absent   absent   absent   ok       quotas:read
ExportService
  ExportUserData          ok       ok       absent   absent   absent   ok       session
AuditService
  ListAuditEvents         role     role     role     role     role     ok       audit:read
"""


@dataclass(frozen=True)
class Row:
    """What is expected of one way to call an RPC."""

    title: (
        str  # "DocumentService.ListDocuments/in": what stands behind the slash tells one request from others
    )
    cells: dict[str, str]
    scopes: tuple[str, ...]  # or one of the words that stand for none
    lesser: tuple[str, ...]  # scopes for the RPC that do not open this request
    others: str  # what a key meets that has none of the scopes

    @property
    def method(self) -> str:
        """The RPC, as ``DocumentService.ListDocuments``."""
        return self.title.partition("/")[0]

    @property
    def is_public(self) -> bool:
        """Whether it is called without a credential."""
        return self.scopes == ("public",)

    @property
    def least(self) -> str:
        """Whose keys the scopes are tried with: the USER's, or an ADMIN's where it takes one."""
        return "ADMIN" if self.cells["USER"] == "role" else "USER"

    def cell(self, caller: str, *, by_key: bool) -> str:
        """What a caller meets."""
        if by_key and self.scopes == ("session",):
            return "role" if self.cells[caller] == "role" else "session"
        return self.cells[caller]


def _rows() -> Iterator[Row]:
    service = ""
    for line in _TABLE.strip().splitlines()[1:]:
        words = line.split()
        if len(words) == 1:
            service = words[0]
            continue
        cells = dict(zip(CALLERS, words[1:7], strict=True))
        scopes = [scope for word in words[7:] for scope in _SHORT.get(word, (word,))]
        lesser = [scope.strip("()") for scope in scopes if scope.startswith("(")]
        full = [scope for scope in scopes if scope != "self" and not scope.startswith("(")]
        others = "absent" if "self" in scopes else _WITHOUT_SCOPE.get(full[0], "scope")
        yield Row(f"{service}.{words[0]}", cells, tuple(full), tuple(lesser), others)


ROWS: Final = {row.title: row for row in _rows()}
"""Every line of the table by its title."""
