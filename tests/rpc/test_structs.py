"""Structs to JSON and back: nothing is lost, and every limit is kept."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.errors import Invalid, Reason
from morag_meta.rpc.structs import MAX_BYTES, MAX_DEPTH, json_to_struct, struct_to_json

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
_SCALAR = st.none() | st.booleans() | _TEXT | st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    _SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4)
)


def _struct(value: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(value)
    return struct


def _nested(levels: int, *, lists: bool) -> Struct:
    inner: Any = 1
    for _ in range(levels - 1):
        inner = [inner] if lists else {"k": inner}
    return _struct({"k": inner})


@given(st.dictionaries(_TEXT, _JSON, max_size=4))
def test_a_struct_survives_storage(value: dict[str, Any]) -> None:
    """What was sent is what is sent back, also after it was text in a column."""
    struct = _struct(value)
    stored = json.loads(json.dumps(struct_to_json(struct, "f"), allow_nan=False))
    assert json_to_struct(stored) == struct


def test_whole_numbers_are_stored_without_a_fraction() -> None:
    """Up to 2^53 a double is a whole number exactly; beyond, and for minus zero, it stays a float."""
    stored = struct_to_json(
        _struct({"a": 3.0, "b": 2.0**53, "c": 2.0**54, "d": -0.0, "e": 0.5, "f": 0.0}), "f"
    )
    assert json.dumps(stored, sort_keys=True) == (
        '{"a": 3, "b": 9007199254740992, "c": 1.8014398509481984e+16, "d": -0.0, "e": 0.5, "f": 0}'
    )


def test_nothing_stored_is_an_empty_struct() -> None:
    """A null or empty column gives a Struct without fields."""
    assert json_to_struct(None) == json_to_struct({}) == Struct()


@pytest.mark.parametrize("lists", [True, False])
def test_depth_is_counted_in_objects_and_lists(lists: bool) -> None:
    """The deepest allowed level passes, one more does not."""
    struct_to_json(_nested(MAX_DEPTH, lists=lists), "f")
    with pytest.raises(Invalid, match=f"f: has more than {MAX_DEPTH} levels"):
        struct_to_json(_nested(MAX_DEPTH + 1, lists=lists), "f")


@pytest.mark.parametrize("character", ["x", "ä", "€", "😀"])
def test_size_is_counted_in_bytes_of_the_json(character: str) -> None:
    """A value of exactly the limit passes, one byte more does not."""
    room = MAX_BYTES - len('{"k":""}')
    text = character * (room // len(character.encode()))
    text += "x" * (room - len(text.encode()))
    struct_to_json(_struct({"k": text}), "f")
    with pytest.raises(Invalid, match="larger than 65536 bytes"):
        struct_to_json(_struct({"k": text + "x"}), "f")


def test_a_struct_that_is_far_too_large_is_not_converted() -> None:
    """The size on the wire is enough to refuse it, and never refuses one that is allowed."""
    most = (MAX_BYTES - len('{"":[]}') + 1) // 2
    struct_to_json(_struct({"": [1.0] * most}), "f")
    deep_and_large = _struct({"k": ["x" * MAX_BYTES * 8], "d": _nested(MAX_DEPTH + 1, lists=True)["k"]})
    with pytest.raises(Invalid, match="larger than"):
        struct_to_json(deep_and_large, "f")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite(number: float) -> None:
    """NaN and the infinities are refused wherever they stand."""
    for value in ({"k": number}, {"k": [number]}, {"k": {"k": number}}):
        with pytest.raises(Invalid, match="not finite"):
            struct_to_json(_struct(value), "f")


@pytest.mark.parametrize("value", [{"k": "a\x00"}, {"\x00": 1}, {"k": ["\x00"]}, {"k": {"a\x00b": 1}}])
def test_nul_is_refused_in_texts_and_keys(value: dict[str, Any]) -> None:
    """No database keeps a NUL in a text, so none is taken."""
    with pytest.raises(Invalid, match="NUL"):
        struct_to_json(_struct(value), "f")


def test_a_value_without_a_kind_is_refused() -> None:
    """A Value of which nothing is set says nothing that JSON could say."""
    with pytest.raises(Invalid, match="no kind"):
        struct_to_json(Struct(fields={"k": Value()}), "f")


def test_the_error_names_the_field() -> None:
    """The violation carries the path of the Struct in its request."""
    with pytest.raises(Invalid) as caught:
        struct_to_json(_struct({"k": 1}), "server.config", max_bytes=3)
    assert caught.value.reason is Reason.INVALID_FIELD
    assert [violation.field for violation in caught.value.violations] == ["server.config"]
