"""Who may call a method: read from the proto's ``access`` option and enforced here alone (AIP-211).

Whose rows a method touches is not decided here: every statement binds its owner (``db/statements.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import Default

from morag_meta.auth.narrowing import narrowed
from morag_meta.auth.principal import Principal, Role
from morag_meta.errors import Forbidden, Reason
from moragmeta.v1 import options_pb2

# Importing these registers the services' descriptors.
from moragmeta.v1 import (  # isort: skip
    api_keys_pb2,
    audit_pb2,
    databases_pb2,
    documents_pb2,
    exports_pb2,
    grants_pb2,
    jobs_pb2,
    quotas_pb2,
    servers_pb2,
    users_pb2,
    workers_pb2,
)

SERVICES: Final = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file in (
        users_pb2,
        servers_pb2,
        databases_pb2,
        grants_pb2,
        documents_pb2,
        jobs_pb2,
        workers_pb2,
        api_keys_pb2,
        quotas_pb2,
        exports_pb2,
        audit_pb2,
    )
    for name in file.DESCRIPTOR.services_by_name
)
"""The full names of the API's services."""


class UndeclaredAccess(RuntimeError):
    """A method says nothing of who may call it; a server with such a method refuses to start."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a method asks of its caller."""

    public: bool
    minimum_role: Role
    scopes: tuple[str, ...]
    """Of which an API key needs one."""
    any_scope: bool = False
    """Whether an API key needs none."""
    admits_narrowed: bool = False
    """Whether an API key may call it that is narrowed to some databases or servers."""

    @property
    def needs_session(self) -> bool:
        """Whether no API key may call it."""
        return not (self.public or self.any_scope or self.scopes)


def service(full_name: str) -> ServiceDescriptor:
    """Give a service's descriptor."""
    found: ServiceDescriptor = Default().FindServiceByName(full_name)
    return found


def access_of(method: MethodDescriptor) -> Access:
    """Read what a method declares.

    Raises:
        UndeclaredAccess: it declares nothing, or neither a role nor that it is public, or not what it means
            for narrowed keys although keys may call it.
    """
    options = method.GetOptions()
    declared = options.Extensions[options_pb2.access]
    if not options.HasExtension(options_pb2.access) or not (declared.public or declared.minimum_role):
        raise UndeclaredAccess(f"{method.full_name} does not declare its access; add option (access)")
    role = Role(declared.minimum_role) if declared.minimum_role else Role.VIEWER
    takes_keys = not declared.public and (declared.scopes or declared.any_scope)
    if takes_keys and not declared.narrowed_keys:
        raise UndeclaredAccess(f"{method.full_name} does not say what it means for narrowed API keys")
    admits_narrowed = declared.narrowed_keys == options_pb2.NARROWED_KEYS_ADMITTED
    return Access(declared.public, role, tuple(declared.scopes), declared.any_scope, admits_narrowed)


@cache
def access_named(name: str) -> Access:
    """Read what a method declares, by the name that a call has it by: ``UserService.SetUserRole``."""
    servicer, _, method = name.partition(".")
    return access_of(service(f"{options_pb2.DESCRIPTOR.package}.{servicer}").methods_by_name[method])


def check_access(access: Access, principal: Principal) -> None:
    """Refuse a caller whose role or key does not allow the method.

    Raises:
        Forbidden: ROLE_TOO_LOW, SESSION_REQUIRED, SCOPE_MISSING or KEY_NARROWED.
    """
    if access.public:
        return
    if principal.role < access.minimum_role:
        needed = access.minimum_role.name
        raise Forbidden(
            f"the role {needed} is needed", reason=Reason.ROLE_TOO_LOW, metadata={"required_role": needed}
        )
    if not principal.key_id:
        return
    if access.needs_session:
        raise Forbidden("a session's access token is needed, not an API key", reason=Reason.SESSION_REQUIRED)
    if not access.any_scope and not any(map(principal.has_scope, access.scopes)):
        raise Forbidden(
            f"the API key lacks the scope {' or '.join(access.scopes)}",
            reason=Reason.SCOPE_MISSING,
            metadata={"required_scope": access.scopes[0]},
        )
    if principal.narrowing is not None and not access.admits_narrowed:
        raise narrowed("the API key is narrowed to some databases or servers, and this reaches beyond them")


def known_scopes(services: Iterable[str] = SERVICES) -> dict[str, Role]:
    """Give every scope that a method asks for, with the least role that can use it at all."""
    scopes: dict[str, Role] = {}
    for name in services:
        for method in service(name).methods:
            access = access_of(method)
            for scope in () if access.public else access.scopes:
                least = Role.ADMIN if scope.endswith(":all") else access.minimum_role
                scopes[scope] = min(scopes.get(scope, Role.ADMIN), least)
    return scopes
