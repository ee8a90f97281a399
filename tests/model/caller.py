"""The same steps on the wire: labels become ids, and ids labels."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from morag_meta.auth.keys import new_key
from tests.model.contract import METHODS, Method
from tests.model.steps import GARBAGE, MADE_BY, NOBODY, ROOT, ROOT_KEY, Answer, Step, present
from tests.refusals import Refusal, read_details
from tests.service import Service

_IDS: Final = re.compile(r"(^|_)ids?$")
_SECRETS: Final = ("key", "lease_token", "refresh_token")
_NOT_SHOWN: Final = frozenset(
    {
        *("create_time", "update_time", "etag", "replayed"),  # of every message
        *("last_used_time", "use_count", "key_prefix", "address", "user_agent"),  # of credentials
        *("max_attempts", "deadlines", "fallback_delay"),  # of jobs, always the same
        *("secret", "access_token", "refresh_token", "token", "lease_token"),
        *("access_token_expire_time", "session_expire_time"),
    }
)
_STUBS: Final = {
    "UserService": "users",
    "ServerService": "servers",
    "DatabaseService": "databases",
    "GrantService": "grants",
    "DocumentService": "documents",
    "JobService": "jobs",
    "WorkerService": "workers",
    "ApiKeyService": "api_keys",
    "QuotaService": "quotas",
}
_CREDENTIAL_OF_NOBODY: Final = "morag_" + "x" * 43


class Caller:
    """Everybody who calls one service in a walk."""

    def __init__(self, service: Service) -> None:
        """Call a service, whose ADMIN is the walk's."""
        root = service.admin
        self._channel = service.channel()
        self._ids = {ROOT: root.id, ROOT_KEY: root.key_id}
        self._labels = {root.id: ROOT, root.key_id: ROOT_KEY}
        self._secrets = {ROOT_KEY: root.key}
        self._unknown = uuid.uuid4()

    def label_of(self, id: str) -> str:
        """Give the label of an id, or the id itself where it is not known."""
        return self._labels.get(id, id)

    def answer(self, step: Step) -> Answer:
        """Make the call, or all calls of a list, and give what is answered."""
        method = METHODS[step.method]
        request = ParseDict(self._sent(step.given), method.request())
        stub = getattr(getattr(self._channel, _STUBS[method.service]), method.name)
        try:
            if "next_page_token" in _fields(_answered(method)):
                items = list(self._pages(stub, request, step))
                return Answer(content=items)
            response = stub(request, metadata=self._credential(step.caller))
        except grpc.RpcError as error:
            return _refusal(error)
        self._learn(step, response)
        return Answer(content=self.plain(response))

    def _pages(self, stub: Callable[..., Any], request: Any, step: Step) -> Iterator[Any]:
        """Give what all pages of a list hold; none is larger than asked for, and no later one is empty."""
        while True:
            page = stub(request, metadata=self._credential(step.caller))
            items = next(getattr(page, field.name) for field in page.DESCRIPTOR.fields if _repeats(field))
            assert len(items) <= request.page_size, "a page is larger than was asked for"
            assert items or not request.page_token, "a page after the first one is empty"
            yield from map(self.plain, items)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    def _credential(self, label: str) -> tuple[tuple[str, str], ...]:
        if label == NOBODY:
            return ()
        if label == GARBAGE:
            return (("authorization", "Bearer garbage"),)
        if label.startswith("s"):
            return (("authorization", f"Bearer {self._secrets.get(label, 'e.e.e')}"),)
        return (("x-api-key", self._secrets.get(label, _CREDENTIAL_OF_NOBODY)),)

    def _sent(self, given: Any, name: str = "") -> Any:
        """Give a request as JSON with ids and secrets for labels."""
        if isinstance(given, dict):
            return {field: self._sent(value, field) for field, value in given.items()}
        if isinstance(given, list):
            return [self._sent(item, name) for item in given]
        if name in _SECRETS:
            return self._secrets.get(given) or self._unknown_secret(name, given)
        if _IDS.search(name) and re.fullmatch(r"[a-z]\d+", given):
            return self._ids.get(given) or self._id_of_nothing(given)
        return given

    def _id_of_nothing(self, label: str) -> str:
        id = str(uuid.uuid5(self._unknown, label))
        self._labels[id] = label
        return id

    def _unknown_secret(self, name: str, label: str) -> str:
        if not label:
            return ""
        return new_key() if name == "key" else str(uuid.uuid5(self._unknown, label))

    def _learn(self, step: Step, response: Any) -> None:
        """Keep what an answer made: ids and secrets."""
        method = step.method
        if method in ("Login", "RefreshToken"):
            self._secrets[f"r{step.number}"] = response.refresh_token
        if method == "Login":
            self._secrets[step.made] = response.access_token
            who = self._channel.api_keys.GetCurrentPrincipal(
                METHODS["GetCurrentPrincipal"].request(), metadata=self._credential(step.made)
            )
            self._name(step.made, who.session_id)
        elif method in ("CreateApiKey", "RotateApiKey"):
            self._secrets[step.made] = response.secret
            self._name(step.made, response.api_key.id)
        elif method in ("CreateDocument", "BatchCreateDocuments"):
            answers = getattr(response, "responses", [response])
            for label, answer in zip(step.all_made, answers, strict=True):
                self._name(label, answer.document.id)
        elif method in MADE_BY:
            self._name(step.made, response.id)
        elif method == "StartJob":
            self._secrets[f"{self.label_of(response.id)}#{response.attempt}"] = response.lease_token
        elif method == "LeaseJobs":
            for lease in response.leases:
                self._secrets[f"{self.label_of(lease.job.id)}#{lease.job.attempt}"] = lease.token

    def _name(self, label: str, id: str) -> None:
        if id not in self._labels:
            self._ids[label], self._labels[id] = id, label

    def plain(self, message: Message) -> dict[str, Any]:
        """Give a message as plain values: labels for ids, true for a time, and names for enums."""
        return present(
            **{
                field.name: [self._value(field, item) for item in value]
                if _repeats(field)
                else self._value(field, value)
                for field, value in message.ListFields()
                if field.name not in _NOT_SHOWN
            }
        )

    def _value(self, field: FieldDescriptor, value: Any) -> Any:
        if field.message_type is not None:
            full_name = field.message_type.full_name
            if full_name == "google.protobuf.Timestamp":
                return True
            if full_name == "google.protobuf.Duration":
                return value.ToJsonString()
            return self.plain(value)
        if field.enum_type is not None:
            names = field.enum_type.values_by_number
            return names[value].name.removeprefix(names[0].name.removesuffix("UNSPECIFIED"))
        if value == 0 and field.has_presence:
            return str(value)  # is not left out as what is empty: it says another thing than none
        return self.label_of(value) if isinstance(value, str) else value


def _answered(method: Method) -> Descriptor:
    file = method.request.DESCRIPTOR.file
    service = file.services_by_name[method.service]
    found: Descriptor = service.methods_by_name[method.name].output_type
    return found


def _fields(message: Descriptor) -> Any:
    return message.fields_by_name


def _repeats(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _refusal(error: Any) -> Answer:
    refusal = Refusal()
    read_details(refusal, error)
    return Answer(error.code().name, refusal.reason)
