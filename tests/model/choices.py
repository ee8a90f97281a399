"""What happens next in a walk: chosen at random, so that most steps do something and some are refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from tests.model.contract import METHODS, ROLES
from tests.model.requests import REQUESTS
from tests.model.steps import GARBAGE, NOBODY, ROOT_KEY, Step
from tests.model.world import World

T = TypeVar("T")

WEIGHTS: Final = {
    "RegisterUser": 3,
    "Login": 4,
    "RefreshToken": 3,
    "Logout": 0.5,
    "EndSession": 1,
    "ListSessions": 2,
    "ChangePassword": 0.5,
    "GetUser": 3,
    "ListUsers": 2,
    "UpdateUser": 2,
    "SetUserRole": 4,
    "DeactivateUser": 2,
    "ReactivateUser": 4,
    "DeleteUser": 2,
    "CreateApiKey": 9,
    "GetApiKey": 3,
    "ListApiKeys": 4,
    "UpdateApiKey": 8,
    "DeleteApiKey": 2,
    "RevokeApiKey": 3,
    "DisableApiKey": 3,
    "EnableApiKey": 4,
    "RotateApiKey": 7,
    "VerifyApiKey": 5,
    "GetCurrentPrincipal": 4,
    "GetQuotas": 3,
    "SetQuotas": 7,
    "GetUsage": 7,
    "CreateServer": 4,
    "GetServer": 2,
    "ListServers": 2,
    "UpdateServer": 4,
    "DeleteServer": 1,
    "CreateDatabase": 8,
    "GetDatabase": 6,
    "ListDatabases": 6,
    "UpdateDatabase": 3,
    "DeleteDatabase": 3,
    "RecountDocuments": 2,
    "GrantAccess": 12,
    "RevokeAccess": 6,
    "ListGrants": 5,
    "CreateDocument": 22,
    "BatchCreateDocuments": 8,
    "GetDocument": 12,
    "BatchGetDocuments": 4,
    "ListDocuments": 10,
    "UpdateDocument": 10,
    "DeprecateDocument": 4,
    "ReinstateDocument": 3,
    "DeleteDocument": 6,
    "UndeleteDocument": 6,
    "CreateJob": 18,
    "RetryJob": 5,
    "GetJob": 8,
    "ListJobs": 7,
    "ListJobEvents": 4,
    "PurgeJobs": 3,
    "CancelJob": 5,
    "StartJob": 6,
    "RegisterWorker": 5,
    "GetWorker": 2,
    "ListWorkers": 1,
    "LeaseJobs": 8,
    "UpdateJobProgress": 7,
    "CompleteJob": 8,
    "FailJob": 5,
    "HeartbeatJob": 4,
    "ReleaseJob": 4,
}
_BEGINNING: Final = 12
"""Steps in which people come."""
_MOST_USERS: Final = 9
"""Of whom there are more only for a while."""


class Choices:
    """The dice of one walk, over the model as it is."""

    def __init__(self, seed: int, world: World) -> None:
        """Choose by a seed."""
        self.dice = random.Random(seed)  # noqa: S311 - a walk that can be taken again
        self.world = world
        self.user = ""

    def next(self, number: int) -> Step:
        """Give the next step."""
        method = self.dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if number <= _BEGINNING and number % 2:
            method = "RegisterUser"
        if method == "RegisterUser" and len(self.world.users) >= _MOST_USERS:
            method = "DeleteUser"
        caller = self._caller(method)
        self.user = self._owner(caller)
        return Step(number, caller, method, REQUESTS[method](self, number))

    # Who and what

    def _caller(self, method: str) -> str:
        """Choose a credential: mostly one that stands and may make the call."""
        world, declared = self.world, METHODS[method]
        labels = [*world.keys, *world.sessions]
        if self.odds(0.04):
            return self.dice.choice([NOBODY, GARBAGE, f"k{self.dice.randrange(10**7, 10**8)}"])
        if self.odds(0.12):
            return self.dice.choice(labels)
        fit = []
        for label in labels:
            principal = world.standing(label)
            if principal is None or ROLES[principal.role] < declared.least_role:
                continue
            if not principal.key or declared.any_scope or any(map(principal.has, declared.scopes)):
                fit.append(label)
        others = [label for label in fit if self.world.users[self._owner(label)].role != "ADMIN"]
        sharing = {place.owner for place in world.databases.values()} | {who for _, who in world.grants}
        busy = [label for label in others if self._owner(label) in sharing]
        if busy and self.odds(0.6):
            return self.dice.choice(busy)
        return self.dice.choice((others if self.odds(0.8) else fit) or fit or [ROOT_KEY])

    def _owner(self, caller: str) -> str:
        holder = self.world.keys.get(caller) or self.world.sessions.get(caller)
        return "" if holder is None else holder.owner

    def odds(self, probability: float) -> bool:
        """Say yes so often."""
        return self.dice.random() < probability

    def one(self, things: Iterable[str], prefix: str) -> str:
        """Choose a label, now and then one that never was."""
        found = list(things)
        if not found or self.odds(0.03):
            return f"{prefix}{self.dice.randrange(10**7, 10**8)}"
        return self.dice.choice(found)

    def mine(self, things: dict[str, Any], prefix: str, fit: Callable[[Any], bool] = lambda _: True) -> str:
        """Choose something: mostly what fits and is the caller's or shared with the caller."""
        near = [label for label, thing in things.items() if self._is_near(thing) and fit(thing)]
        if near and self.odds(0.82):
            return self.dice.choice(near[-12:])
        fitting = [label for label, thing in things.items() if fit(thing)]
        return self.one((fitting if self.odds(0.5) else []) or things, prefix)

    def _is_near(self, thing: Any) -> bool:
        place = thing.id if thing.id in self.world.databases else getattr(thing, "database", "")
        return thing.owner == self.user or (place, self.user) in self.world.grants

    def for_owner(self) -> dict[str, Any]:
        """Choose for whom something is made; mostly it is not said."""
        return {"owner_id": self.one(self.world.users, "u")} if self.odds(0.08) else {}

    def listing(self, **more: Any) -> dict[str, Any]:
        """Choose how a list is paged and whose it is."""
        owner = {}
        if self.odds(0.15):
            owner = {"owner_id": self.dice.choice(["-", self.one(self.world.users, "u")])}
        return {"page_size": self.dice.choice([1, 2, 3, 7, 1000]), **owner, **more}

    def etag(self) -> dict[str, Any]:
        """Give a wrong etag now and then."""
        return {"etag": "wrong"} if self.odds(0.03) else {}

    def maybe(self, probability: float, **given: T) -> dict[str, T]:
        """Give this or nothing."""
        return given if self.odds(probability) else {}

    def some(self, things: Sequence[T], most: int) -> list[T]:
        """Choose some."""
        return self.dice.sample(things, self.dice.randint(1, min(most, len(things))))
