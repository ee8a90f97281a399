"""The one wrapper of every call: decoding, request id, authentication, access, rules, errors, log.

It builds gRPC's handlers from the services' descriptors and from what ``rpc/fit.py`` makes of them and of
their servicers. Statuses are made in ``rpc/status.py``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import Message

from morag_meta.audit.rules import Entry
from morag_meta.audit.writer import AuditWriter
from morag_meta.auth.authenticator import Authenticator
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.principal import ANONYMOUS
from morag_meta.auth.rates import Rates
from morag_meta.auth.usage import KeyUsage
from morag_meta.db.database import Database
from morag_meta.errors import MetaError
from morag_meta.ids import new_id
from morag_meta.rpc import status, trail
from morag_meta.rpc.access import check_access, service
from morag_meta.rpc.call import Call
from morag_meta.rpc.decoding import decode
from morag_meta.rpc.fit import Method, UnfitServicer, describe
from morag_meta.rpc.methods import Kind
from morag_meta.rpc.peers import agent_of
from morag_meta.rpc.streams import Streams, draining
from morag_meta.rpc.trail import Trail
from morag_meta.rpc.validation import validate

REQUEST_ID_KEY: Final = "x-request-id"
REPLAYED_KEY: Final = "morag-replayed"
QUOTA_WARNING_KEY: Final = "morag-quota-warning"
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,64}")

_log = structlog.get_logger("morag_meta.access")
_faults = structlog.get_logger(__name__)

Metadata = Mapping[str, Any]
Work = Callable[[Call, Metadata], Awaitable[Any]]


class Dispatcher:
    """Makes gRPC handlers of servicers."""

    def __init__(
        self,
        database: Database,
        authenticator: Authenticator,
        rates: Rates,
        usage: KeyUsage,
        streams: Streams,
        audit: AuditWriter,
        hasher: KeyHasher,
    ) -> None:
        """Serve through these parts; ``hasher`` hashes the requests with a request id."""
        self._rates = rates
        self._usage = usage
        self._database = database
        self._authenticator = authenticator
        self._streams = streams
        self._audit = audit
        self._hasher = hasher
        self.in_flight = 0
        """How many methods are running."""
        self.arrived = 0
        """How many calls have come so far."""
        self._refusing = False

    def handler(self, servicer: Any) -> grpc.GenericRpcHandler:
        """Give the handler of a servicer's service.

        Raises:
            UndeclaredAccess, UnfitServicer: see ``describe``.
        """
        handlers: dict[str, Any] = {}
        for descriptor in service(servicer.SERVICE).methods:
            method = describe(servicer, descriptor)
            if method.mark.kind is Kind.STREAM:
                handlers[descriptor.name] = grpc.unary_stream_rpc_method_handler(self._stream(method))
            else:
                handlers[descriptor.name] = grpc.unary_unary_rpc_method_handler(self._unary(method))
        return grpc.method_handlers_generic_handler(servicer.SERVICE, handlers)

    def refuse_new(self) -> None:
        """Answer calls that come from now on with SERVER_DRAINING, whose clients then go elsewhere."""
        self._refusing = True

    def _unary(self, method: Method) -> Any:
        async def unary(data: bytes, context: Any) -> Any:
            guarded = self._guard(context, method, partial(self._answer, method, data))
            del data, context  # see _guard
            return await guarded

        return unary

    def _stream(self, method: Method) -> Any:
        async def stream(data: bytes, context: Any) -> None:
            guarded = self._guard(context, method, partial(self._send, method, data, context))
            del data, context  # see _guard
            await guarded

        return stream

    async def _answer(self, method: Method, data: bytes, call: Call, metadata: Metadata) -> bytes:
        request = await self._admit(method, data, call, metadata)
        response = await self._run(method, request, call)
        if method.mark.kind is Kind.READ:
            self._note(trail.read(call, response))
        return response.SerializeToString()

    async def _send(self, method: Method, data: bytes, context: Any, call: Call, metadata: Metadata) -> None:
        request = await self._admit(method, data, call, metadata)
        opened = self._streams.open(context, call.principal, method.access, call.peer)
        call.trail.opened = True
        running = method.run(method.servicer, request, call, opened)
        del data, metadata, request  # a kilobyte and a half, which thousands that wait need not keep
        try:
            await running
        finally:
            self._streams.close(opened)
        self._note(trail.read(call))

    async def _guard(self, context: Any, method: Method, work: Work) -> Any:
        """Run a call so that nothing but a status leaves it, and write its line in the access log.

        gRPC keeps what ``abort`` raises with the call's context, and its traceback keeps the frames that it
        went through. What those still hold then waits for the collector of garbage, which comes seldom: so
        they let go of the request, of who calls, of the error and of the context itself.
        """
        started = time.perf_counter()
        metadata = dict(context.invocation_metadata() or ())
        call = self._new_call(method, metadata, context)
        failure: MetaError
        working = work(call, metadata)
        del metadata, work
        self.arrived += 1
        self.in_flight += 1
        try:
            answer = await working
        except asyncio.CancelledError:
            self._note(trail.canceled(call))
            self._ended(call, "CANCELLED", started)
            raise
        except MetaError as error:
            failure = error
        except Exception:  # noqa: BLE001 - the last door before gRPC, which would tell the client
            _faults.exception("unforeseen error", method=method.name, request_id=call.request_id)
            failure = status.internal(call.request_id)
        else:
            self._ended(call, "OK", started, **_near_limits(call))
            context.set_trailing_metadata(_trailers(call))
            return answer
        finally:
            self.in_flight -= 1
        code = status.code_of(failure)
        self._note(trail.failed(call, code.name, failure))
        self._ended(call, code.name, started, reason=str(failure.reason))
        trailers = (*_trailers(call), (status.DETAILS_KEY, status.details_of(failure)))
        aborting = context.abort(code, status.message_of(failure), trailers)
        del context, call, failure, working
        try:
            return await aborting  # raises what gRPC expects
        except grpc.aio.InternalError:
            # The client has left just now, which is no fault of ours, and would be written as one.
            raise asyncio.CancelledError from None

    def _ended(self, call: Call, code: str, started: float, **more: str) -> None:
        """Write a call's line, and count it for its key; one that its client canceled is no error."""
        seconds = time.perf_counter() - started
        _log_call(call, code, seconds, **more)
        if call.principal.key_id:
            failed = code not in ("OK", "CANCELLED")
            self._usage.note_call(call.principal.key_id, call.method, time.time(), seconds, failed=failed)

    def _new_call(self, method: Method, metadata: Metadata, context: Any) -> Call:
        sent = metadata.get(REQUEST_ID_KEY, "")
        remaining = context.time_remaining()
        return Call(
            principal=ANONYMOUS,
            method=method.name,
            request_id=sent if isinstance(sent, str) and _REQUEST_ID.fullmatch(sent) else new_id(),
            peer=context.peer(),
            deadline=None if remaining is None else time.monotonic() + remaining,
            agent=agent_of(str(metadata.get("user-agent", ""))),
            hasher=self._hasher,
            trail=Trail(method.audit, method.access.public),
        )

    def _note(self, entry: Entry | None) -> None:
        if entry is not None:
            self._audit.note(entry)

    async def _admit(self, method: Method, data: bytes, call: Call, metadata: Metadata) -> Message:
        """Decode a request and decide whether it may run (AIP-211: who asks, before what is asked for)."""
        if self._refusing:
            raise draining()
        request: Message = decode(method.request_type, data)
        if call.trail.is_recorded:
            call.trail.request = request
        if method.access.public:
            validate(request)
            self._rates.admit_address(call.peer)  # what is not valid costs nothing, and so counts for nothing
            return request
        call.principal = await self._authenticator.authenticate(metadata, call.peer)
        if call.principal.key_id:
            self._rates.admit_key(call.principal)
        check_access(method.access, call.principal)
        validate(request)
        return request

    async def _run(self, method: Method, request: Message, call: Call) -> Message:
        mark = method.mark
        if mark.kind is Kind.COMPOSE:
            return await method.run(method.servicer, request, call)  # type: ignore[no-any-return]
        if mark.kind is Kind.READ:
            return await self._database.read(
                lambda uow: method.run(method.servicer, uow, request, call),
                point=mark.point,
                snapshot=mark.snapshot,
                deadline=call.deadline,
            )
        if not method.identified or not request.request_id:  # type: ignore[attr-defined]
            return await self._database.write(
                lambda uow: _run_write(method, uow, request, call), deadline=call.deadline
            )
        return await self._database.write(
            lambda uow: _run_once(method, uow, request, call), deadline=call.deadline
        )


def _run_write(method: Method, uow: Any, request: Any, call: Call) -> Message:
    call.quota_warnings = uow.quota_warnings  # filled at the commit, of the run that is committed
    response: Message = method.run(method.servicer, uow, request, call)
    trail.record(uow, call, response)
    return response


def _run_once(method: Method, uow: Any, request: Any, call: Call) -> Message:
    """Run a write under its request id, or answer what an earlier call under that id did."""
    mark = method.mark
    if mark.replay is None or mark.receipt is None:
        raise UnfitServicer(method.name)
    receipt = uow.requests.claim(call, request)
    if receipt is not None:
        return mark.replay(method.servicer, uow, call, receipt)  # type: ignore[no-any-return]
    response = _run_write(method, uow, request, call)
    uow.requests.settle(call, request, mark.receipt(response))
    return response


def _trailers(call: Call) -> tuple[tuple[str, str | bytes], ...]:
    warnings = ((QUOTA_WARNING_KEY, warning) for warning in call.quota_warnings)
    known = ((REQUEST_ID_KEY, call.request_id), *warnings)
    return (*known, (REPLAYED_KEY, "true")) if call.replayed else known


def _near_limits(call: Call) -> dict[str, str]:
    return {"near_limits": ", ".join(call.quota_warnings)} if call.quota_warnings else {}


def _log_call(call: Call, code: str, seconds: float, **more: str) -> None:
    _log.info(
        "call",
        method=call.method,
        code=code,
        ms=round(seconds * 1000, 2),
        request_id=call.request_id,
        principal=call.principal.user_id,
        peer=call.peer,
        **more,
    )
