"""How a servicer says what each of its methods is: a read, a write, a composition or a stream.

The marks are read once, at start, by ``rpc/dispatch.py``, which runs the methods.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, TypeVar, cast

from morag_meta.rpc.standing import prove

F = TypeVar("F", bound=Callable[..., Any])
_MARK: Final = "__rpc__"


class Kind(enum.Enum):
    """What running a method means."""

    READ = enum.auto()
    WRITE = enum.auto()
    COMPOSE = enum.auto()
    STREAM = enum.auto()


@dataclass(frozen=True, slots=True)
class Mark:
    """What a servicer said of a method; see the decorators."""

    kind: Kind
    point: bool = False
    snapshot: bool = False
    replay: Callable[..., Any] | None = None
    receipt: Callable[[Any], dict[str, Any]] | None = None
    stands: bool = False


def reads(*, point: bool = False, snapshot: bool = False) -> Callable[[F], F]:
    """Mark ``method(self, uow, request, call)`` as reading only.

    ``point``: one statement that finds a row by its key. ``snapshot``: several statements that agree.
    """
    return _marked(Mark(Kind.READ, point=point, snapshot=snapshot))


def writes(
    *,
    replay: Callable[..., Any] | None = None,
    receipt: Callable[[Any], dict[str, Any]] | None = None,
    stands: bool = False,
) -> Callable[[F], F]:
    """Mark ``method(self, uow, request, call)`` as a transaction, committed when it returns.

    It may run more than once, and must touch nothing but its unit of work. ``replay(self, uow, call,
    receipt)`` answers a repeated request id with the resource as it now is; ``receipt(response)`` is what
    it needs to find it, by default the response's id.

    ``stands``: what it does outlives the caller's standing, or gives it back, so the caller is proved anew in
    the transaction, before the method runs (``rpc/standing.py``). Not for what comes often: such calls follow
    one another in the whole installation.
    """
    mark = _marked(Mark(Kind.WRITE, replay=replay, receipt=receipt or _id_of, stands=stands))

    def decorate(method: F) -> F:
        return mark(_proving(method) if stands else method)

    return decorate


def composes(method: F) -> F:
    """Mark ``async method(self, request, call)``, which opens its own units of work between awaits."""
    return _marked(Mark(Kind.COMPOSE))(method)


def streams(method: F) -> F:
    """Mark ``async method(self, request, call, stream)``, which sends messages until it returns."""
    return _marked(Mark(Kind.STREAM))(method)


def mark_of(method: Callable[..., Any]) -> Mark | None:
    """Give what was said of a method, or None."""
    return getattr(method, _MARK, None)


def _marked(mark: Mark) -> Callable[[F], F]:
    def decorate(method: F) -> F:
        setattr(method, _MARK, mark)
        return method

    return decorate


def _proving(method: F) -> F:
    @wraps(method)
    def proved(servicer: Any, uow: Any, request: Any, call: Any) -> Any:
        prove(uow, call)
        return method(servicer, uow, request, call)

    return cast("F", proved)


def _id_of(response: Any) -> dict[str, Any]:
    return {"id": response.id}
