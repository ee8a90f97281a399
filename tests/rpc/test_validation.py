"""The fields' rules are enforced as the protos declare them, for every field of every request."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_meta.errors import Invalid
from morag_meta.rpc.validation import validate
from moragmeta.v1 import api_keys_pb2, documents_pb2, jobs_pb2, options_pb2, servers_pb2, users_pb2
from tests.rpc.messages import METHODS, messages, request_type, rules_of
from tests.rpc.reading import broken_fields

_ID = "0195a000-0000-7000-8000-000000000001"


def violations(request: Message) -> list[str]:
    """Give the fields that the service's validation names, in its order."""
    try:
        validate(request)
    except Invalid as error:
        refusal = error
    else:
        return []
    assert refusal.reason == "INVALID_FIELD"
    assert refusal.message.startswith(refusal.violations[0].field)
    return [violation.field for violation in refusal.violations]


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_validation_finds_what_the_protos_say(name: str, data: st.DataObject) -> None:
    """For any message, the fields that are named are those that break a rule by another reading of it."""
    request = data.draw(messages(METHODS[name].input_type))
    broken = sorted(broken_fields(request))
    assert sorted(violations(request)) == broken


@dataclass(frozen=True)
class Place:
    """A field in a request, and the way to it."""

    method: str
    way: tuple[FieldDescriptor, ...]

    def __str__(self) -> str:
        """Name the place as pytest shows it."""
        return f"{self.method.rpartition('.')[2]}:{self.path}"

    @property
    def path(self) -> str:
        """The path that a violation names; the first item stands for all of a list."""
        return ".".join(field.name + ("[0]" if field.is_repeated else "") for field in self.way)

    def holding(self, value: Any) -> Any:
        """Make a request that holds a value here, and nothing else."""
        request: Any = request_type(METHODS[self.method])()
        message = request
        for field in self.way[:-1]:
            message = getattr(message, field.name)
            message = message.add() if field.is_repeated else message
            message.SetInParent()
        last = self.way[-1]
        if last.is_repeated:
            getattr(message, last.name).append(value)
        else:
            setattr(message, last.name, value)
        if "update_mask" in request.DESCRIPTOR.fields_by_name and len(self.way) > 1:
            request.update_mask.paths.append(self.way[1].name)
        return request


def _places(*types: int) -> list[Place]:
    def within(descriptor: Descriptor, way: tuple[FieldDescriptor, ...]) -> Iterator[tuple[Any, ...]]:
        for field in descriptor.fields:
            if rules_of(field).output_only:
                continue
            if field.type in types:
                yield (*way, field)
            elif field.message_type and field.message_type.full_name.startswith("moragmeta."):
                yield from within(field.message_type, (*way, field))

    return [Place(name, way) for name, method in METHODS.items() for way in within(method.input_type, ())]


TEXTS = _places(FieldDescriptor.TYPE_STRING)
ENUMS = _places(FieldDescriptor.TYPE_ENUM)
NUMBERS = _places(FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_DOUBLE)


@pytest.mark.parametrize("place", TEXTS, ids=str)
def test_every_text_refuses_a_nul_and_too_much(place: Place) -> None:
    """Every text of every request refuses a NUL character and one character too many, naming its path."""
    assert place.path in violations(place.holding("a\0b"))
    limit = rules_of(place.way[-1]).max_length
    if limit:
        assert place.path in violations(place.holding("x" * (limit + 1)))
        assert place.path in violations(place.holding("\U0001f600" * (limit + 1)))


def test_every_text_is_bounded() -> None:
    """Each text has a greatest length, or a form of a fixed one, but for the opaque page tokens."""
    fixed = (options_pb2.FORMAT_UUID, options_pb2.FORMAT_OWNER, options_pb2.FORMAT_USER)
    for place in TEXTS:
        rules = rules_of(place.way[-1])
        assert rules.max_length or rules.format in fixed or place.way[-1].name == "page_token", str(place)


@pytest.mark.parametrize("place", ENUMS, ids=str)
def test_every_enum_refuses_unknown_numbers(place: Place) -> None:
    """A number that names no value of the enum is refused, never kept or guessed at."""
    for number in (99, -1, 2**31 - 1):
        assert place.path in violations(place.holding(number))


@pytest.mark.parametrize("place", NUMBERS, ids=str)
def test_every_number_keeps_its_bounds(place: Place) -> None:
    """A number just outside its bounds, or not finite, is refused; its bounds themselves are not."""
    field = place.way[-1]
    rules = rules_of(field)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        for number in (float("nan"), float("inf"), float("-inf")):
            assert place.path in violations(place.holding(number))
    for bound, beyond in (("min", -1), ("max", 1)):
        if rules.HasField(bound):
            limit = getattr(rules, bound)
            limit = limit if field.type == FieldDescriptor.TYPE_DOUBLE else int(limit)
            assert place.path in violations(place.holding(limit + beyond))
            assert place.path not in violations(place.holding(limit)) or (rules.required and not limit)


@pytest.mark.parametrize(
    ("seconds", "nanos", "good"),
    [
        (0, 0, True),
        (-62_135_596_800, 0, True),
        (253_402_300_799, 999_999_999, True),
        (-62_135_596_801, 0, False),
        (253_402_300_800, 0, False),
        (0, -1, False),
        (0, 1_000_000_000, False),
        (2**63 - 1, 0, False),
        (-(2**63), 0, False),
    ],
)
def test_times_beyond_the_calendar_are_refused(seconds: int, nanos: int, good: bool) -> None:
    """A Timestamp is a time from year 1 to 9999; what is not is refused under its own path."""
    request = documents_pb2.ListDocumentsRequest()
    request.create_time_start.seconds, request.create_time_start.nanos = seconds, nanos
    assert violations(request) == ([] if good else ["create_time_start"])


def test_paths_lead_into_messages_and_lists() -> None:
    """A violation deep in a request names the way to it, with the position in each list."""
    request = documents_pb2.BatchCreateDocumentsRequest()
    for name in ("good", "bad\0", ""):
        request.requests.add(document=documents_pb2.Document(name=name, type="pdf"))
    request.requests.add()
    assert violations(request) == [
        "requests[1].document.name",
        "requests[2].document.name",
        "requests[3].document",
    ]
    filtered = jobs_pb2.ListJobsRequest()
    filtered.filter.kinds.extend(["REINDEX", "x" * 51])
    unknown: Any = 77
    filtered.filter.states.extend([jobs_pb2.JOB_STATE_FAILED, unknown])
    assert violations(filtered) == ["filter.kinds[1]", "filter.states[1]"]


def test_a_long_list_of_violations_is_bounded() -> None:
    """A request with hundreds of wrong values is refused with some of them, not with all."""
    request = documents_pb2.BatchCreateDocumentsRequest()
    for _ in range(100):
        request.requests.add(document=documents_pb2.Document(name="\0", type="\0", external_id="\0"))
    assert 16 <= len(violations(request)) <= 60


def test_a_mask_decides_what_is_required() -> None:
    """An update checks the fields that its mask names, and requires the named ones that need a value."""
    server = servers_pb2.Server(id="0195a000-0000-7000-8000-000000000001", name="x" * 256)
    request = servers_pb2.UpdateServerRequest(server=server)
    assert violations(request) == ["server.name"]
    request.update_mask.paths.append("port")
    assert violations(request) == ["server.port"]
    request.update_mask.paths[:] = ["*"]
    assert set(violations(request)) == {"server.name", "server.port", "server.host", "server.kind"}


def test_an_update_names_its_resource() -> None:
    """An update without an id, or with one that is none, is refused before anything is looked up."""
    for id in ("", "me", "a\0b", "0195A000-0000-7000-8000-000000000001"):
        request = servers_pb2.UpdateServerRequest(server=servers_pb2.Server(id=id, name="main"))
        assert violations(request) == ["server.id"], id
    settings_request = users_pb2.UpdateUserSettingsRequest(
        settings=users_pb2.UserSettings(owner_id="a\0b", language="de")
    )
    settings_request.update_mask.paths.append("language")
    assert violations(settings_request) == ["settings.owner_id"]


def test_output_only_fields_of_a_create_are_ignored() -> None:
    """What only the server sets may hold anything in a create, and is not looked at."""
    server = servers_pb2.Server(name="main", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
    server.id = server.owner_id = "\0" * 100
    assert violations(servers_pb2.CreateServerRequest(server=server)) == []


def test_what_no_rule_is_for_is_cleared() -> None:
    """What only the server sets is gone before a method runs, in lists too; what says of what it is stays."""
    document = documents_pb2.Document(id="\0", name="a", type="txt", chunks=-1, quality=math.nan)
    batch = documents_pb2.BatchCreateDocumentsRequest()
    batch.requests.add(document=document)
    assert violations(batch) == []
    assert batch.requests[0].document == documents_pb2.Document(name="a", type="txt")
    given = documents_pb2.Document(id=_ID, etag="e", name="a", quality=math.inf, owner_id="\0")
    update = documents_pb2.UpdateDocumentRequest(document=given)
    assert violations(update) == []
    assert update.document == documents_pb2.Document(id=_ID, etag="e", name="a")


def test_what_stands_outside_a_mask_is_cleared() -> None:
    """What an update carries and does not write is gone, but for what says of what and in which state."""
    limit = api_keys_pb2.RateLimit(per_second=math.nan)
    key = api_keys_pb2.ApiKey(id=_ID, etag="e", name="a", description="\0", rate_limit=limit)
    update = api_keys_pb2.UpdateApiKeyRequest(api_key=key)
    update.update_mask.paths.append("name")
    assert violations(update) == []
    assert update.api_key == api_keys_pb2.ApiKey(id=_ID, etag="e", name="a")
    own = users_pb2.UserSettings(owner_id=_ID, etag="e", language="de", theme=users_pb2.THEME_DARK)
    settings_request = users_pb2.UpdateUserSettingsRequest(settings=own)
    settings_request.update_mask.paths.append("language")
    assert violations(settings_request) == []
    assert settings_request.settings == users_pb2.UserSettings(owner_id=_ID, etag="e", language="de")
