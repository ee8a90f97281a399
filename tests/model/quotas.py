"""The model of quotas: what counts, for whom, and which calls a limit refuses."""

from __future__ import annotations

from typing import Any, Final

from tests.model.jobs import FINAL
from tests.model.steps import Answer, Step, missing, present
from tests.model.world import AFTER, Given, Principal, World, check_etag, rule

RESOURCES: Final = ("documents", "storage_bytes", "databases", "servers", "api_keys", "open_jobs")


def uses(world: World, owner: str) -> dict[str, int]:
    """Count what a user has of everything that can be bounded, whoever made it."""
    live = [d for d in world.documents.values() if d.owner == owner and d.state != "DELETED"]
    keys = [key for key in world.keys.values() if key.owner == owner and not key.revoked]
    replaced = [key for key in keys if key.successor]
    in_grace = [key for key in replaced if key.end is None or key.end >= AFTER]
    return {
        "documents": len(live),
        "storage_bytes": sum(document.size for document in live),
        "databases": sum(database.owner == owner for database in world.databases.values()),
        "servers": sum(server.owner == owner for server in world.servers.values()),
        "api_keys": max(len(keys) - len(replaced), len(in_grace)),
        "open_jobs": sum(job.owner == owner and job.state not in FINAL for job in world.jobs.values()),
    }


def answer(world: World, step: Step) -> Answer:
    """Take a step: what adds to anybody's use, and leaves it beyond a limit, is refused and changes nothing.

    To add is more than to raise: a key that is made among many that are in their grace adds one, and so does
    a document of a batch in which another one becomes smaller.
    """
    before, kept = {owner: uses(world, owner) for owner in world.limits}, world.kept()
    given = world.answer(step)
    if given.code != "OK":  # it added nothing, whatever came before the error of a batch
        return given
    for owner, had in before.items():
        has = uses(world, owner)
        for resource, limit in world.limits.get(owner, {}).items():
            adds = has[resource] > had[resource] or (owner, resource) in world.added
            if adds and has[resource] > limit:
                world.restore(kept)
                return Answer("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    return given


def _owner(world: World, caller: Principal, sent: str) -> str:
    owner = caller.user if sent in ("", "me") else sent
    if owner not in world.users or not (caller.is_admin or owner == caller.user):
        raise missing()
    return owner


def _number(value: int | None) -> int | str | None:
    """Give a number as it is shown where 0 is another thing than none."""
    return "0" if value == 0 else value


def _shown(world: World, owner: str) -> dict[str, Any]:
    limits = {name: _number(limit) for name, limit in world.limits.get(owner, {}).items()}
    return present(owner_id=owner, **limits)


@rule("GetQuotas")
def _get(world: World, caller: Principal, given: Given, step: Step) -> Any:
    return _shown(world, _owner(world, caller, given.get("owner_id", "")))


@rule("SetQuotas")
def _set(world: World, caller: Principal, given: Given, step: Step) -> Any:
    sent = given["quotas"]
    owner = _owner(world, caller, sent.get("owner_id", ""))
    check_etag(sent)
    limits = world.limits.setdefault(owner, {})
    for name in given["update_mask"].split(","):
        resource = {"storageBytes": "storage_bytes", "apiKeys": "api_keys", "openJobs": "open_jobs"}.get(
            name, name
        )
        limits.pop(resource, None)
        if resource in sent:
            limits[resource] = sent[resource]
    return _shown(world, owner)


@rule("GetUsage")
def _get_usage(world: World, caller: Principal, given: Given, step: Step) -> Any:
    owner = _owner(world, caller, given.get("owner_id", ""))
    limits = world.limits.get(owner, {})
    shown: dict[str, Any] = {}
    for resource, used in uses(world, owner).items():
        limit = limits.get(resource)
        near = limit is not None and used >= limit * 0.8
        shown[resource] = present(used=used, limit=_number(limit), near_limit=near)
    return present(owner_id=owner, **shown)
