"""What the protos say of a method: its messages, who may call it, and which scopes there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass

from morag_meta.rpc.access import SERVICES
from moragmeta.v1 import options_pb2

ROLES: Final = {"VIEWER": 1, "USER": 2, "ADMIN": 3}
EVERY_SCOPE: Final = "*"


@dataclass(frozen=True, slots=True)
class Method:
    """A method as it is declared."""

    service: str
    name: str
    request: Any
    public: bool
    least_role: int
    scopes: tuple[str, ...]
    any_scope: bool


def _methods() -> dict[str, Method]:
    found = {}
    for service in SERVICES:
        for method in Default().FindServiceByName(service).methods:
            access = method.GetOptions().Extensions[options_pb2.access]
            found[method.name] = Method(
                service.rpartition(".")[2],
                method.name,
                GetMessageClass(method.input_type),
                access.public,
                access.minimum_role,
                tuple(access.scopes),
                access.any_scope,
            )
    return found


METHODS: Final = _methods()


def _scopes() -> dict[str, int]:
    least: dict[str, int] = {}
    for method in METHODS.values():
        for scope in method.scopes:
            role = ROLES["ADMIN"] if scope.endswith(":all") else method.least_role
            least[scope] = min(role, least.get(scope, ROLES["ADMIN"]))
    return least


SCOPES: Final = _scopes()
"""Every scope, with the least role that can use it."""
