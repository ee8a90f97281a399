"""Texts that mean something to a database, a log or a terminal, in every text of every request.

Texts are found in the descriptors, so that a new one is tried too. Random messages and bytes are tried in
``tests/rpc/test_fuzz.py``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor

from moragmeta.v1 import (
    api_keys_pb2,
    databases_pb2,
    documents_pb2,
    jobs_pb2,
    options_pb2,
    servers_pb2,
    users_pb2,
    workers_pb2,
)
from tests.access.estate import REQUESTS, Estate
from tests.access.stage import BY_NAME, Stage, says_nothing
from tests.access.table import ROWS, Row
from tests.grants.sweep import is_id, texts
from tests.refusals import Refusal, read_details
from tests.rpc.messages import rules_of

pytestmark = pytest.mark.usefixtures("nothing_collected")

CLIENTS_FAULT: Final = {
    *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED"),
    *("OUT_OF_RANGE", "PERMISSION_DENIED", "UNAUTHENTICATED"),
}
HOSTILE: Final = {
    "a quote": "' OR '1'='1",
    "a double quote": '" OR ""="',
    "another statement": "x'; DROP TABLE users; --",
    "a comment": "x'/*",
    "a backslash": "\\' OR 1=1 -- \\",
    "wildcards": "%_%",
    "placeholders": ":owner_id %(owner_id)s %s ? $1 {0} ${x}",
    "NUL": "a\0b",
    "a header": "a\r\nx-api-key: b",
    "an escape for terminals": "\x1b[2Ja\x07",
    "text from right to left": "\u202egnp.exe\u2066",
    "nothing to see": "\u200b\ufeffx\u2060",
    "letters that compose": "e\u0301\ufb01\u0130",
    "beyond the basic plane": "\U0001f600\U0010ffff",
    "a space at the end": "'a ",
    "a path": "../../etc/passwd",
    "a document": '{"$ne": null}',
    "a hundred thousand characters": "'x" * 50_000,
}
# Those tried as passwords, each of which is hashed and takes its time.
_HASHED: Final = {"a quote", "NUL", "beyond the basic plane", "a hundred thousand characters"}
_NO_FILTERS: Final = {"page_token", "resume_token"}  # texts of a read that choose nothing
# Kept in lower case; sealed and never shown; not looked at where something is made.
_OTHERWISE: Final = {"email", "password", "api_key", "etag"}
_SHOWN_AS: Final = {"reason": "deprecation_reason"}
_GETS: Final = {
    "User": lambda admin, one: admin.users.GetUser(users_pb2.GetUserRequest(id=one.id)),
    "UserSettings": lambda admin, one: admin.users.GetUserSettings(
        users_pb2.GetUserSettingsRequest(owner_id=one.owner_id)
    ),
    "ApiKey": lambda admin, one: admin.api_keys.GetApiKey(api_keys_pb2.GetApiKeyRequest(id=one.id)),
    "Server": lambda admin, one: admin.servers.GetServer(servers_pb2.GetServerRequest(id=one.id)),
    "Database": lambda admin, one: admin.databases.GetDatabase(databases_pb2.GetDatabaseRequest(id=one.id)),
    "Document": lambda admin, one: admin.documents.GetDocument(documents_pb2.GetDocumentRequest(id=one.id)),
    "Job": lambda admin, one: admin.jobs.GetJob(jobs_pb2.GetJobRequest(id=one.id)),
    "Worker": lambda admin, one: admin.workers.GetWorker(workers_pb2.GetWorkerRequest(id=one.id)),
}


def _fields(row: Row) -> Iterator[tuple[tuple[str, ...], Any]]:
    return texts(BY_NAME[row.method].input_type)


def _put(request: Any, path: tuple[str, ...], text: str) -> None:
    """Set a text of a request; in a list, that of the first item, which is made where there is none."""
    for name in path[:-1]:
        inner = getattr(request, name)
        request = (inner or [inner.add()])[0] if hasattr(inner, "add") else inner
    if request.DESCRIPTOR.fields_by_name[path[-1]].is_repeated:
        getattr(request, path[-1])[:] = [text]
    else:
        setattr(request, path[-1], text)


def _masked(request: Any) -> list[str]:
    """Name the fields of the updated resource that a mask may name."""
    resource = request.DESCRIPTOR.fields[0].message_type
    return [field.name for field in resource.fields if field.name not in ("id", "owner_id", "etag")]


def _searches(title: str) -> str:
    """Name the field of a list that searches names, if it has one."""
    fields = BY_NAME[ROWS[title].method].input_type.fields_by_name
    return next((name for name in ("name_contains", "text") if name in fields), "")


class Injector:
    """Two estates: one in which nothing is hostile, and one in which whatever can be is."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._estates = {True: Estate(stage.service, {}), False: Estate(stage.service, {})}
        self._pending: dict[str, Any] = {}

    def send(self, row: Row, path: tuple[str, ...], text: str) -> tuple[str, Any]:
        """Send a valid request with one text replaced; give the code, and the answer or what was refused."""
        method = BY_NAME[row.method]
        reads = bool(method.GetOptions().idempotency_level)
        estate = self._estates[reads]
        valid = self._pending.pop(row.title, None) or REQUESTS[row.title](estate)
        request = type(valid)()
        request.CopyFrom(valid)
        _put(request, path, text)
        if (
            "update_mask" in request.DESCRIPTOR.fields_by_name
            and len(path) > 1
            and path[-1] in _masked(request)
        ):
            request.update_mask.paths[:] = [path[-1]]
        metadata = self._stage.owns(estate, row)
        try:
            answer, _ = self._stage.answer(method, request, metadata)
        except grpc.RpcError as error:
            self._pending[row.title] = valid
            refusal, known = Refusal(), _known(error)
            read_details(refusal, error)
            return known.code().name, refusal
        if reads:
            self._pending[row.title] = valid
        return "OK", answer

    def make(self, title: str, name: str) -> None:
        """Make what a list shows, of a name."""
        estate = self._estates[False]
        create = title.replace("List", "Create").removesuffix("s").partition("s/")[0]
        service, _, method = create.partition(".")
        if title == "UserService.ListUsers":
            service, method = "UserService", "RegisterUser"
        row = ROWS[f"{service}.{method}"]
        request = REQUESTS[row.title](estate)
        _put(request, ("name",) if method == "RegisterUser" else (method[6:].lower(), "name"), name)
        self._stage.answer(BY_NAME[row.method], request, self._stage.owns(estate, row))

    def search(self, title: str, text: str) -> list[str]:
        """Give the names that a list finds by a part of them."""
        estate, row = self._estates[False], ROWS[title]
        request = REQUESTS[title](estate)
        setattr(request, _searches(title), text)
        answer, _ = self._stage.answer(BY_NAME[row.method], request, self._stage.owns(estate, row))
        return [item.name for _, items in answer.ListFields() if not isinstance(items, str) for item in items]

    def stored(self, answer: Any, name: str) -> Any:
        """Read a field of the resource that an answer shows from the database once more, or give None."""
        shown = _resource(answer)
        name = _SHOWN_AS.get(name, name)
        if shown is None or name in _OTHERWISE or name not in shown.DESCRIPTOR.fields_by_name:
            return None
        kept = getattr(_GETS[shown.DESCRIPTOR.name](self._stage.service.admin.channel, shown), name)
        return kept if isinstance(kept, str) else "".join(kept)


def _resource(message: Any) -> Any:
    """Give the first resource within an answer."""
    if message.DESCRIPTOR.name in _GETS:
        return message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                if (found := _resource(inner)) is not None:
                    return found
    return None


def _known(error: Any) -> Any:
    return error


@pytest.fixture(scope="module")
def injector(stage: Stage) -> Injector:
    """Give somebody who sends such texts."""
    return Injector(stage)


def _finds_it(answer: Any, text: str) -> bool:
    """Whether an answer is empty, or a list of nothing but what has the text in a text of its own."""
    lists = [items for field, items in answer.ListFields() if field.is_repeated]
    found = [one for items in lists for one in items]
    holders = [
        one for one in found if any(text.lower() in str(value).lower() for _, value in one.ListFields())
    ]
    return says_nothing(answer) or (bool(found) and len(holders) == len(found))


def _amiss(injector: Injector, row: Row, path: tuple[str, ...], field: Any, text: str) -> str:
    """Say what is wrong with the answer to one text, or nothing."""
    code, answer = injector.send(row, path, text)
    if code != "OK":
        return "" if code in CLIENTS_FAULT else f"{code}, {answer}"
    if rules_of(field).output_only:
        return ""  # it is not looked at
    if "\0" in text or field.name == "order_by":
        return "let in"
    if BY_NAME[row.method].GetOptions().idempotency_level:
        filters = field.name not in _NO_FILTERS and not is_id(field)
        return f"finds {answer}" if filters and not _finds_it(answer, text) else ""
    kept = injector.stored(answer, field.name)
    return "" if kept in (None, text) else f"kept as {kept!r}"


@pytest.mark.parametrize("title", [title for title, row in ROWS.items() if any(_fields(row))])
def test_no_text_is_more_than_a_text(injector: Injector, title: str) -> None:
    """Whatever a text holds, it is refused by its rules, or kept byte for byte, or finds nothing at all."""
    row, wrong = ROWS[title], []
    for path, field in _fields(row):
        for name, text in HOSTILE.items():
            if "password" in field.name and name not in _HASHED:
                continue
            mail = f"{text.replace(' ', '')}@hostile.test"
            sent = mail if rules_of(field).format == options_pb2.FORMAT_EMAIL else text
            if amiss := _amiss(injector, row, path, field, sent):
                wrong.append(f"{name} in {'.'.join(path)} is {amiss}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("title", [title for title in ROWS if "/" not in title and _searches(title)])
@pytest.mark.parametrize("sign", ["%", "_", "\\", "[a-z]", "*", "?"])
def test_no_sign_of_a_searched_text_stands_for_others(injector: Injector, title: str, sign: str) -> None:
    """A search by a part of the name finds what has that part, and nothing that a wildcard would."""
    names = [f"a{sign}z {uuid.uuid4().hex}", f"abz {uuid.uuid4().hex}"]
    for name in names:
        injector.make(title, name)
    assert injector.search(title, f"a{sign}z {names[0][-32:]}") == [names[0]]
    assert injector.search(title, f"{sign}z {names[1][-32:]}") == []
