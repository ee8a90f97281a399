"""Every case, by area; a module here holds one area's."""

from __future__ import annotations

from morag_meta.conformance.case import Case
from morag_meta.conformance.cases import (
    access,
    api_keys,
    audit,
    databases,
    documents,
    etags,
    exports,
    fields,
    grants,
    health,
    jobs,
    leases,
    masks,
    narrowing,
    paging,
    quotas,
    repeats,
    reports,
    servers,
    sessions,
    users,
    watch_job,
    watch_jobs,
    workers,
)

_AREAS = (
    paging,
    fields,
    masks,
    etags,
    repeats,
    access,
    users,
    sessions,
    api_keys,
    narrowing,
    audit,
    servers,
    databases,
    documents,
    grants,
    jobs,
    reports,
    workers,
    leases,
    watch_job,
    watch_jobs,
    quotas,
    exports,
    health,
)

CASES: tuple[Case, ...] = tuple(case for module in _AREAS for case in module.AREA.cases)
