"""Every call that is measured: its path, its message, and beside which rivals it stands."""

from __future__ import annotations

import itertools
import random
import time
from typing import Final

import grpc

from benchmarks.contract import BARE, DISPATCHED
from benchmarks.data import PASSWORD, Filled
from benchmarks.load import MakeMessage, Target
from benchmarks.wire import call_headers
from morag_meta.auth.authenticator import BEARER_HEADER, KEY_HEADER
from moragmeta.v1 import documents_pb2, jobs_pb2, users_pb2, users_pb2_grpc

_DOCUMENTS: Final = "moragmeta.v1.DocumentService"
_JOBS: Final = "moragmeta.v1.JobService"
PAGE: Final = 50

GET, LIST, UPDATE, KEY = "GetDocument", f"ListDocuments({PAGE})", "UpdateJobProgress", "authenticated call"
TOKEN: Final = "authenticated call, JWT"  # noqa: S105 - the name of a measurement
OURS, ECHO, RAW, BARE_RAW, ORM = "", "bare echo", "raw driver", "raw driver, bare", "ORM"
RIVALS: Final = {
    GET: (ECHO, RAW, BARE_RAW, ORM),
    LIST: (ECHO, RAW, BARE_RAW),
    UPDATE: (ECHO, RAW, BARE_RAW),
    KEY: (ECHO, BARE_RAW),
    TOKEN: (ECHO,),
}
"""What each method is measured beside."""

Name = tuple[str, str]
"""A method, and OURS or the rival that is called in its stead."""


def targets(filled: Filled, port: int, tls: bytes | None = None) -> dict[Name, Target]:
    """Give every call on a server of a filled database; ``tls`` is the certificate of who vouches for it."""
    key, token = (KEY_HEADER, filled.key), (BEARER_HEADER, _log_in(filled, port, tls))
    get, page, update = _get(filled), _list(filled), _updates(filled)
    echo = Target(call_headers(f"/{BARE}/Echo"), get)

    def target(service: str, method: str, message: MakeMessage, credential: tuple[str, str] | None) -> Target:
        return Target(call_headers(f"/{service}/{method}", credential), message)

    return {
        (GET, OURS): target(_DOCUMENTS, "GetDocument", get, key),
        (GET, RAW): target(DISPATCHED, "RawGetDocument", get, key),
        (GET, BARE_RAW): target(BARE, "GetDocument", get, None),
        (GET, ORM): target(DISPATCHED, "OrmGetDocument", get, key),
        (LIST, OURS): target(_DOCUMENTS, "ListDocuments", page, key),
        (LIST, RAW): target(DISPATCHED, "RawListDocuments", page, key),
        (LIST, BARE_RAW): target(BARE, "ListDocuments", page, None),
        (UPDATE, OURS): target(_JOBS, "UpdateJobProgress", update, key),
        (UPDATE, RAW): target(DISPATCHED, "RawUpdateJobProgress", update, key),
        (UPDATE, BARE_RAW): target(BARE, "UpdateJobProgress", update, None),
        (KEY, OURS): target(DISPATCHED, "Authenticated", get, key),
        (KEY, BARE_RAW): target(BARE, "CheckKey", get, key),
        (TOKEN, OURS): target(DISPATCHED, "Authenticated", get, token),
        **{(method, ECHO): echo for method in RIVALS},
    }


def _log_in(filled: Filled, port: int, tls: bytes | None) -> str:
    target = f"localhost:{port}"
    secure = grpc.ssl_channel_credentials(tls)
    with grpc.insecure_channel(target) if tls is None else grpc.secure_channel(target, secure) as channel:
        stub = users_pb2_grpc.UserServiceStub(channel)
        answer = stub.Login(users_pb2.LoginRequest(email=filled.email, password=PASSWORD))
    return f"Bearer {answer.access_token}"


def _get(filled: Filled) -> MakeMessage:
    messages = [documents_pb2.GetDocumentRequest(id=id).SerializeToString() for id in filled.documents]
    random.shuffle(messages)
    return itertools.cycle(messages).__next__


def _list(filled: Filled) -> MakeMessage:
    request = documents_pb2.ListDocumentsRequest(page_size=PAGE, owner_id=filled.owner_id)
    return itertools.repeat(request.SerializeToString()).__next__


def _updates(filled: Filled) -> MakeMessage:
    """Report progress of one job after the other, so that few calls at once wait for one row's lock.

    Report numbers are the time in microseconds, which grows whoever else reports of the same job.
    """
    ids = itertools.cycle(filled.jobs)

    def message() -> bytes:
        number = time.time_ns() // 1000
        return jobs_pb2.UpdateJobProgressRequest(
            id=next(ids),
            attempt=1,
            report_number=number,
            percentage=number % 100,
            phase="chunking",
            summary=f"page {number % 1000} of 1000",
        ).SerializeToString()

    return message
