"""What a method is: its descriptor and the servicer's method, which must fit each other.

Matched once, at start; ``rpc/dispatch.py`` runs what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from morag_meta.audit.declaration import Declaration, declaration_of
from morag_meta.rpc.access import Access, access_of
from morag_meta.rpc.methods import Kind, Mark, mark_of


class UnfitServicer(RuntimeError):
    """A servicer lacks a method of its service, or marks one so that it cannot be run."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service, and how it is run."""

    name: str  # "DocumentService.GetDocument"
    request_type: type[Message]
    access: Access
    mark: Mark
    run: Callable[..., Any]  # the servicer's method, unbound
    servicer: Any
    identified: bool  # its request carries a request_id, which the dispatcher looks after
    audit: Declaration | None


def describe(servicer: Any, descriptor: MethodDescriptor) -> Method:
    """Match a servicer's method with its descriptor.

    Raises:
        UndeclaredAccess: the descriptor does not say who may call it.
        UnfitServicer: the method is missing, unmarked, or takes a request id without saying how it is
            replayed.
    """
    name = f"{descriptor.containing_service.name}.{descriptor.name}"
    run = getattr(type(servicer), descriptor.name, None)
    mark = mark_of(run) if run is not None else None
    if run is None or mark is None:
        raise UnfitServicer(f"{type(servicer).__name__} has no marked method {name}")
    if descriptor.server_streaming != (mark.kind is Kind.STREAM):
        raise UnfitServicer(f"{name} streams in the proto or in the servicer, but not in both")
    identified = "request_id" in descriptor.input_type.fields_by_name
    if mark.kind is Kind.WRITE and identified and mark.replay is None:
        raise UnfitServicer(f"{name} takes a request_id and does not say how it is replayed")
    return Method(
        name=name,
        request_type=GetMessageClass(descriptor.input_type),
        access=access_of(descriptor),
        mark=mark,
        run=run,
        servicer=servicer,
        identified=identified and mark.kind is Kind.WRITE,
        audit=declaration_of(descriptor),
    )
