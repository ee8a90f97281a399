"""Update masks: which fields an update writes, for any resource and any mask."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from morag_meta.errors import Invalid
from morag_meta.rpc.masks import masked
from moragmeta.v1 import api_keys_pb2, databases_pb2, documents_pb2, servers_pb2, users_pb2
from tests.rpc.messages import messages, rules_of

_RESOURCES = {
    kind.DESCRIPTOR.name: kind
    for kind in (
        *(users_pb2.User, users_pb2.UserSettings, api_keys_pb2.ApiKey),
        *(servers_pb2.Server, databases_pb2.Database, documents_pb2.Document),
    )
}
_WRITABLE = {
    name: [
        field.name
        for field in kind.DESCRIPTOR.fields
        if field.name != "etag" and not rules_of(field).output_only and not rules_of(field).immutable
    ]
    for name, kind in _RESOURCES.items()
}


def _refused(resource: Any, *paths: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        masked(resource, FieldMask(paths=paths))
    assert caught.value.reason == "INVALID_UPDATE_MASK"
    assert [violation.field for violation in caught.value.violations] == ["update_mask"]
    return caught.value


@pytest.mark.parametrize("name", _RESOURCES)
@settings(max_examples=20)
@given(data=st.data())
def test_a_mask_writes_what_it_names(name: str, data: st.DataObject) -> None:
    """A mask of writable fields writes them in its order, once each, whether they are set or not."""
    resource = data.draw(messages(_RESOURCES[name].DESCRIPTOR))
    paths = data.draw(st.lists(st.sampled_from(_WRITABLE[name]), min_size=1))
    written = masked(resource, FieldMask(paths=paths))
    assert len(written) == len(set(written))
    assert set(written) == set(paths)
    assert sorted(written, key=paths.index) == written


@pytest.mark.parametrize("name", _RESOURCES)
@settings(max_examples=20)
@given(data=st.data())
def test_no_mask_writes_what_is_set(name: str, data: st.DataObject) -> None:
    """Without a mask every field that is set and can be written is written, and nothing is cleared."""
    resource = data.draw(messages(_RESOURCES[name].DESCRIPTOR))
    populated = [field.name for field, _ in resource.ListFields()]
    expected = [field for field in populated if field in _WRITABLE[name]]
    assert sorted(masked(resource, FieldMask())) == sorted(expected)


@pytest.mark.parametrize("name", _RESOURCES)
def test_a_star_writes_everything_that_can_be_written(name: str) -> None:
    """``*`` names every writable field, set or not, and stands alone."""
    resource = _RESOURCES[name]()
    assert sorted(masked(resource, FieldMask(paths=["*"]))) == sorted(_WRITABLE[name])
    _refused(resource, "*", _WRITABLE[name][0])
    _refused(resource, "*", "*")


@pytest.mark.parametrize("name", _RESOURCES)
@settings(max_examples=20)
@given(data=st.data())
def test_a_mask_with_one_wrong_name_is_refused(name: str, data: st.DataObject) -> None:
    """One name that is unknown, nested, output-only, immutable, the id or the etag refuses the whole mask."""
    kind = _RESOURCES[name]
    fixed = [field.name for field in kind.DESCRIPTOR.fields if field.name not in _WRITABLE[name]]
    nested = [f"{_WRITABLE[name][0]}.value", "name.", ".name", "config.tls", "metadata.a.b"]
    camel = ["createTime", "displayName", "Name", "NAME"]
    wrong = data.draw(st.sampled_from([*fixed, *nested, *camel, "", " ", "name,port", "\x00"]) | st.text())
    if wrong in _WRITABLE[name] or wrong == "*":
        return
    paths = data.draw(st.lists(st.sampled_from(_WRITABLE[name]), max_size=3))
    place = data.draw(st.integers(0, len(paths)))
    _refused(kind(), *paths[:place], wrong, *paths[place:])


def test_a_refusal_names_the_field_but_not_at_any_length() -> None:
    """The message repeats the wrong name, cut to what a person reads."""
    assert "'nonsense' is not a field of Server" in _refused(servers_pb2.Server(), "nonsense").message
    assert "'create_time' cannot be changed" in _refused(servers_pb2.Server(), "create_time").message
    assert len(_refused(servers_pb2.Server(), "x" * 100_000).message) < 200
