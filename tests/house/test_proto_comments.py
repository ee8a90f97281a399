"""The protos are documentation: every element has a comment, every RPC says who may call it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from moragmeta.v1 import options_pb2

_ROOT = Path(__file__).parents[2]
_PROTOS = sorted((_ROOT / "protos").glob("moragmeta/v1/*.proto"))
_BUF = Path(sys.executable).with_name("buf")

# An element's place in a file: field numbers and indexes of descriptor.proto, as in a source location's path.
_Place = tuple[int, ...]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[descriptor_pb2.FileDescriptorProto]:
    """Compile the protos with their comments."""
    out = tmp_path_factory.mktemp("descriptors") / "all"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos", "--include_source_info"]
    names = [str(path.relative_to(_ROOT)) for path in _PROTOS]
    subprocess.run([*command, f"--descriptor_set_out={out}", *names], cwd=_ROOT, check=True)
    compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return list(compiled.file)


def _enums(
    place: _Place, enums: Iterable[descriptor_pb2.EnumDescriptorProto], scope: str
) -> Iterator[tuple[_Place, str]]:
    for index, enum in enumerate(enums):
        here = (*place, index)
        yield here, f"{scope}.{enum.name}"
        for number, value in enumerate(enum.value):
            yield (*here, 2, number), f"{scope}.{value.name}"


def _messages(
    place: _Place, messages: Iterable[descriptor_pb2.DescriptorProto], scope: str
) -> Iterator[tuple[_Place, str]]:
    for index, message in enumerate(messages):
        if message.options.map_entry:
            continue
        here, name = (*place, index), f"{scope}.{message.name}"
        yield here, name
        for number, field in enumerate(message.field):
            yield (*here, 2, number), f"{name}.{field.name}"
        # The compiler makes a oneof of its own for each `optional` field; the source has none to comment.
        own = {field.oneof_index for field in message.field if field.proto3_optional}
        for number, oneof in enumerate(message.oneof_decl):
            if number not in own:
                yield (*here, 8, number), f"{name}.{oneof.name}"
        yield from _messages((*here, 3), message.nested_type, name)
        yield from _enums((*here, 4), message.enum_type, name)


def _elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[_Place, str]]:
    scope = file.package
    yield from _messages((4,), file.message_type, scope)
    yield from _enums((5,), file.enum_type, scope)
    for index, service in enumerate(file.service):
        yield (6, index), f"{scope}.{service.name}"
        for number, method in enumerate(service.method):
            yield (6, index, 2, number), f"{scope}.{service.name}.{method.name}"
    for index, extension in enumerate(file.extension):
        yield (7, index), f"{scope}.{extension.name}"


def test_every_element_has_a_comment(files: list[descriptor_pb2.FileDescriptorProto]) -> None:
    """Messages, fields, enums, values, services, RPCs and extensions all say what they are, in a sentence."""
    bare, count = [], 0
    for file in files:
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for place, name in _elements(file):
            count += 1
            text = comments.get(place, "").strip()
            if len(text.split()) < 2 or not text.endswith((".", ":", "`")):
                bare.append(f"{file.name}: {name}: {text!r}")
    assert count > 100
    assert bare == []


def _methods() -> list[MethodDescriptor]:
    found: list[MethodDescriptor] = []
    for proto in _PROTOS:
        module = importlib.import_module(f"moragmeta.v1.{proto.stem}_pb2")
        file = cast("FileDescriptor", module.DESCRIPTOR)
        for service in file.services_by_name.values():
            found += service.methods
    return found


def test_every_rpc_declares_who_may_call_it() -> None:
    """Each RPC carries the access option: public, or a least role and scopes of a known form."""
    wrong = []
    for method in _methods():
        options = method.GetOptions()
        if not options.HasExtension(options_pb2.access):
            wrong.append(f"{method.full_name} lacks the option")
            continue
        access = options.Extensions[options_pb2.access]
        if access.public == bool(access.minimum_role) or (access.public and access.scopes):
            wrong.append(f"{method.full_name} is either public or has a least role")
        if access.any_scope and (access.public or access.scopes):
            wrong.append(f"{method.full_name} is for any key, and yet public or of a scope")
        wrong += [
            f"{method.full_name} has the scope {scope!r}"
            for scope in access.scopes
            if not re.fullmatch("[a-z_]+:(read|write|reset|(work|verify)(:all)?)", scope)
        ]
    assert _methods()
    assert wrong == []


def test_reading_methods_are_marked_and_need_no_more_than_a_viewer_scope() -> None:
    """A method without side effects asks for a read scope, and one with them never does; work is both.

    To verify keys is a scope of its own, which only reads.
    """
    wrong = []
    for method in _methods():
        options = method.GetOptions()
        reads = options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
        scopes = [
            scope
            for scope in options.Extensions[options_pb2.access].scopes
            if scope not in ("jobs:work", "jobs:work:all")
            and not (reads and scope in ("api_keys:verify", "api_keys:verify:all"))
        ]
        wrong += [f"{method.full_name}: {scope}" for scope in scopes if scope.endswith(":read") != reads]
    assert wrong == []


def test_buf_finds_nothing_to_say() -> None:
    """The protos pass buf's standard and comment rules, and are laid out as buf does."""
    subprocess.run([_BUF, "lint"], cwd=_ROOT, check=True)
    subprocess.run([_BUF, "format", "--diff", "--exit-code", "protos"], cwd=_ROOT, check=True)
