"""Writes ``docs/api.md``, the reference of the API, from the protos and their comments.

Run by ``make docs``; a test compares what it would write with what is there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

from moragmeta.v1 import options_pb2

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "api.md"
PACKAGE = ".moragmeta.v1."
_ORDER = (
    "options",
    "users",
    "servers",
    "databases",
    "grants",
    "documents",
    "jobs",
    "workers",
    "api_keys",
    "quotas",
    "exports",
    "audit",
    "errors",
)
_TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
# The places of a file's parts in a source location's path: descriptor.proto says so.
_MESSAGE, _ENUM, _SERVICE, _PART = 4, 5, 6, 2


def read_files() -> list[FileDescriptorProto]:
    """Compile the protos with their comments."""
    sources = [f"moragmeta/v1/{name}.proto" for name in _ORDER]
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        well_known = Path(grpc_tools.__file__).parent / "_proto"
        arguments = [f"-I{ROOT / 'protos'}", f"-I{well_known}", "--include_source_info"]
        if protoc.main(["protoc", *arguments, f"--descriptor_set_out={image}", *sources]):
            raise SystemExit("the protos do not compile")
        found = {file.name: file for file in FileDescriptorSet.FromString(image.read_bytes()).file}
    return [found[name] for name in sources]


class Page:
    """The reference of one file."""

    def __init__(self, file: FileDescriptorProto) -> None:
        """Read the file's comments."""
        self._file = file
        self._comments = {
            tuple(location.path): location.leading_comments
            for location in file.source_code_info.location
            if location.leading_comments
        }

    def lines(self) -> Iterator[str]:
        """Give the lines of the page."""
        stem = Path(self._file.name).stem
        yield f"## {stem}.proto"
        yield from self._comment((2,) if (2,) in self._comments else (12,))
        for index, service in enumerate(self._file.service):
            yield from self._service(index, service)
        for index, message in enumerate(self._file.message_type):
            yield from self._message(index, message)
        for index, enum in enumerate(self._file.enum_type):
            yield from self._enum(index, enum)

    def _service(self, index: int, service: ServiceDescriptorProto) -> Iterator[str]:
        yield f"### {service.name}"
        yield from self._comment((_SERVICE, index))
        for place, method in enumerate(service.method):
            access = method.options.Extensions[options_pb2.access]
            who = (
                "anybody"
                if access.public
                else options_pb2.Role.Name(access.minimum_role).removeprefix("ROLE_")
            )
            scopes = " or ".join(f"`{scope}`" for scope in access.scopes)
            without = "" if access.public else (", any API key" if access.any_scope else ", no API key")
            scope = f", scope {scopes}" if scopes else without
            stream = "stream " if method.server_streaming else ""
            yield f"#### {service.name}.{method.name}"
            yield f"`{_short(method.input_type)}` → `{stream}{_short(method.output_type)}` · {who}{scope}"
            yield from self._comment((_SERVICE, index, _PART, place))

    def _message(self, index: int, message: DescriptorProto) -> Iterator[str]:
        yield f"### {message.name}"
        yield from self._comment((_MESSAGE, index))
        rows = [
            f"| {field.number} | `{field.name}` | {_type_of(field)} | "
            f"{self._cell((_MESSAGE, index, _PART, place))}{_rules_of(field)} |"
            for place, field in enumerate(message.field)
        ]
        if rows:
            yield "\n".join(["| # | field | type | |", "|---|---|---|---|", *rows])

    def _enum(self, index: int, enum: EnumDescriptorProto) -> Iterator[str]:
        yield f"### {enum.name}"
        yield from self._comment((_ENUM, index))
        rows = [
            f"| {value.number} | `{value.name}` | {self._cell((_ENUM, index, _PART, place))} |"
            for place, value in enumerate(enum.value)
        ]
        yield "\n".join(["| # | value | |", "|---|---|---|", *rows])

    def _comment(self, path: Sequence[int]) -> Iterator[str]:
        text = self._comments.get(tuple(path), "")
        if text:
            yield "\n".join(line.removeprefix(" ").rstrip() for line in text.splitlines())

    def _cell(self, path: Sequence[int]) -> str:
        return " ".join(self._comments.get(tuple(path), "").split()).replace("|", "\\|")


def _short(name: str) -> str:
    return name.removeprefix(PACKAGE).removeprefix(".")


def _type_of(field: FieldDescriptorProto) -> str:
    name = _short(field.type_name) if field.type_name else _TYPES[field.type]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _rules_of(field: FieldDescriptorProto) -> str:
    """Say the rules that are enforced before a method runs."""
    rules = field.options.Extensions[options_pb2.rules]
    words = [
        name.replace("_", " ") for name in ("required", "output_only", "immutable") if getattr(rules, name)
    ]
    words += [
        f"{name.replace('_', ' ')} {getattr(rules, name)}"
        for name in ("min_length", "max_length", "max_items")
        if getattr(rules, name)
    ]
    words += [f"{name} {getattr(rules, name):.17g}" for name in ("min", "max") if rules.HasField(name)]
    if rules.format:
        words.append(options_pb2.Format.Name(rules.format).removeprefix("FORMAT_").lower())
    return f" *({', '.join(words)})*" if words else ""


def render() -> str:
    """Give the whole reference."""
    head = [
        "# API reference",
        "Written by `make docs` from `protos/`; do not edit.",
        "What stands in *(…)* behind a field is enforced before a method runs.",
    ]
    return "\n\n".join([*head, *(line for file in read_files() for line in Page(file).lines())]) + "\n"


if __name__ == "__main__":
    text = render()
    if "--check" in sys.argv:
        raise SystemExit(None if TARGET.read_text() == text else "docs/api.md is not current: make docs")
    TARGET.write_text(text)
