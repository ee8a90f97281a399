"""The unit of work: everything that is kept together or not at all.

It is the in-process API as well as the servicers': ``Database.unit_of_work()`` opens one, leaving the
block rolls back, and only an explicit ``commit()`` keeps. Nothing below it commits. How a statement
runs stands in ``db/unit.py``, and each feature's statements in its ``store.py``.

Lock order, for all who lock more than one row: epoch of authorization, user, session, password
reset, tries, server, database, document, job, worker; and last of all, at the commit, the quotas of whoever
has more of something. A grant is locked after the row that it opens, in the same statement. An owner's
turn in the queue is locked after jobs, and never waited for.
"""

from __future__ import annotations

from functools import cached_property

from morag_meta.api_keys.forgetting import KeyForgetting
from morag_meta.api_keys.store import ApiKeyStore
from morag_meta.audit.store import AuditStore
from morag_meta.auth.makers import MakerStore
from morag_meta.auth.renewals import RenewalStore
from morag_meta.auth.sessions import SessionStore
from morag_meta.auth.store import EpochStore, StandingStore
from morag_meta.auth.tries import TryStore
from morag_meta.databases.store import DatabaseStore
from morag_meta.db.counted import Resource
from morag_meta.db.requests import RequestStore
from morag_meta.db.unit import Unit
from morag_meta.documents.removal import DocumentRemovals
from morag_meta.documents.store import DocumentStore
from morag_meta.exports.store import ExportStore
from morag_meta.grants.store import GrantStore
from morag_meta.jobs.forgetting import JobForgetting
from morag_meta.jobs.log import JobLog
from morag_meta.jobs.queue import JobQueue
from morag_meta.jobs.removal import JobRemovals
from morag_meta.jobs.stats import JobStats
from morag_meta.jobs.store import JobStore
from morag_meta.quotas.store import QuotaStore
from morag_meta.servers.store import ServerStore
from morag_meta.users.resets import ResetStore
from morag_meta.users.store import SettingsStore, UserStore
from morag_meta.workers.store import WorkerStore


class UnitOfWork(Unit):
    """The stores of one unit of database work."""

    def commit(self) -> None:
        """Keep what was done, as ``Unit.commit`` does, unless a user has more of something than allowed.

        Raises:
            QuotaExceeded: a limit is passed.
            MetaError: as ``Unit.commit``.
        """
        for owner_id, grown in sorted(self.grown.items()):
            self.quota_warnings += self.quotas.check(owner_id, {Resource(name) for name in grown})
        self.grown.clear()
        super().commit()

    @cached_property
    def quota_warnings(self) -> list[str]:
        """What is near its limit, known once the unit is committed."""
        return []

    @cached_property
    def users(self) -> UserStore:
        """Accounts."""
        return UserStore(self)

    @cached_property
    def settings(self) -> SettingsStore:
        """Each user's settings."""
        return SettingsStore(self)

    @cached_property
    def sessions(self) -> SessionStore:
        """Log-ins and their refresh tokens."""
        return SessionStore(self)

    @cached_property
    def resets(self) -> ResetStore:
        """Password resets."""
        return ResetStore(self)

    @cached_property
    def tries(self) -> TryStore:
        """Tries at something secret."""
        return TryStore(self)

    @cached_property
    def makers(self) -> MakerStore:
        """Which generation of a secret made what there is."""
        return MakerStore(self)

    @cached_property
    def renewals(self) -> RenewalStore:
        """What an old generation of a secret made."""
        return RenewalStore(self)

    @cached_property
    def api_keys(self) -> ApiKeyStore:
        """API keys."""
        return ApiKeyStore(self)

    @cached_property
    def standings(self) -> StandingStore:
        """What a credential stands for."""
        return StandingStore(self)

    @cached_property
    def epoch(self) -> EpochStore:
        """The counter that drops cached principals."""
        return EpochStore(self)

    @cached_property
    def servers(self) -> ServerStore:
        """Vector database servers."""
        return ServerStore(self)

    @cached_property
    def databases(self) -> DatabaseStore:
        """Databases on those servers."""
        return DatabaseStore(self)

    @cached_property
    def grants(self) -> GrantStore:
        """With whom databases are shared."""
        return GrantStore(self)

    @cached_property
    def documents(self) -> DocumentStore:
        """Documents."""
        return DocumentStore(self)

    @cached_property
    def document_removals(self) -> DocumentRemovals:
        """What removes documents for good."""
        return DocumentRemovals(self)

    @cached_property
    def jobs(self) -> JobStore:
        """Jobs and their events."""
        return JobStore(self)

    @cached_property
    def queue(self) -> JobQueue:
        """Which job is next, and which is overdue."""
        return JobQueue(self)

    @cached_property
    def workers(self) -> WorkerStore:
        """Those who take jobs."""
        return WorkerStore(self)

    @cached_property
    def job_stats(self) -> JobStats:
        """Figures about jobs."""
        return JobStats(self)

    @cached_property
    def log(self) -> JobLog:
        """The events of all jobs in one order."""
        return JobLog(self)

    @cached_property
    def job_removals(self) -> JobRemovals:
        """What removes jobs and events for good."""
        return JobRemovals(self)

    @cached_property
    def key_forgetting(self) -> KeyForgetting:
        """What others' API keys name no longer."""
        return KeyForgetting(self)

    @cached_property
    def job_forgetting(self) -> JobForgetting:
        """What forgets who is deleted in what stays of jobs."""
        return JobForgetting(self)

    @cached_property
    def quotas(self) -> QuotaStore:
        """What users may have."""
        return QuotaStore(self)

    @cached_property
    def exports(self) -> ExportStore:
        """Everything of one user."""
        return ExportStore(self)

    @cached_property
    def requests(self) -> RequestStore:
        """What request ids did."""
        return RequestStore(self)

    @cached_property
    def audit(self) -> AuditStore:
        """What was done and refused, and by whom."""
        return AuditStore(self)
