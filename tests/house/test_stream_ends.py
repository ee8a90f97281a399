"""The ends of streams stand in the proto's comments, in docs/streams.md and in the code, and these agree.

What can be derived from the code is which reasons the modules name that a call of a stream passes through. Of
these some cannot end a stream, and each of them stands here with the why.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from morag_meta.errors import Reason
from moragmeta.v1 import jobs_pb2, options_pb2

_ROOT = Path(__file__).parents[2]
_METHODS = ("WatchJob", "WatchJobs")
_COMMON = (
    "auth/addresses",
    "auth/authenticator",
    "auth/narrowing",
    "auth/rates",
    "auth/sharing",
    "auth/standing",
    "auth/store",
    "auth/tokens",
    "db/database",
    "db/faults",
    "db/lanes",
    "jobs/channels",
    "jobs/feed",
    "jobs/sequencer",
    "jobs/servicer",
    "jobs/sharing",
    "jobs/store",
    "rpc/access",
    "rpc/call",
    "rpc/decoding",
    "rpc/dispatch",
    "rpc/grounds",
    "rpc/places",
    "rpc/status",
    "rpc/stream",
    "rpc/streams",
    "rpc/validation",
)
_PATHS = {
    "WatchJob": (*_COMMON, "jobs/watch"),
    "WatchJobs": (*_COMMON, "jobs/watch_jobs", "jobs/resume", "jobs/convert", "jobs/listing"),
}
# Of the same folders, and on no stream's way.
_ASIDE = {
    "auth/passwords": "Login",
    "auth/sessions": "Login",
    "auth/throttle": "Login",
    "db/requests": "writes",
    "db/unit": "writes",
    "jobs/actions": "writes",
    "jobs/leases": "writes",
    "jobs/rules": "writes",
    "rpc/etags": "writes",
    "rpc/masks": "writes",
    "rpc/pages": "lists",
    "rpc/structs": "writes",
    "rpc/times": "requests with times",
}
# Named on the way, and no end of a stream.
_NEVER = {
    "SESSION_REQUIRED": "both methods name scopes, so a key may call them",
    "KEY_NARROWED": "both methods admit narrowed keys",
    "GRANT_TOO_LOW": "a stream needs a READER's grant, which every grant is",
    "DEADLINE_IN_QUEUE": "a stream's reads have no deadline of their own",
    "JOB_ALREADY_OPEN": "of writes alone",
    "RESOURCE_EXISTS": "of writes alone",
}
_NEVER_OF = {"WatchJob": _NEVER | {"OWNER_NOT_ALLOWED": "it names no owner"}, "WatchJobs": _NEVER}

End = tuple[str, tuple[str, ...], str, str]
"""A status, its reasons, what they mean and what to do."""


def _ends_in_docs(method: str) -> list[End]:
    page = (_ROOT / "docs/streams.md").read_text()
    section = re.search(rf"^## {method}\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = [line.strip("| ").split(" | ") for line in section.group(1).splitlines() if line.startswith("| ")]
    ends = []
    for row in rows[1:]:
        status, reasons, means, do = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell).strip() for cell in row)
        ends.append((status, tuple(reasons.split(", ") if reasons else ()), means, do))
    return ends


def _ends_in_proto(method: str) -> list[End]:
    source = (_ROOT / "protos/moragmeta/v1/jobs.proto").read_text()
    before = source[: source.index(f"  rpc {method}(")]
    comment = before[before.rindex("\n\n") :]
    lines = [line.strip().removeprefix("//") for line in comment.splitlines()]
    ends = []
    for bullet in re.findall(r"^ \* (.*?)(?=^ \*|^$)", "\n".join(lines), re.MULTILINE | re.DOTALL):
        told = re.fullmatch(r"([A-Z_]+)(?: \(([A-Z_, ]+)\))?: (.*): (.*)\.", " ".join(bullet.split()))
        assert told is not None, bullet
        status, reasons, means, do = told.groups()
        ends.append((status, tuple(reasons.split(", ") if reasons else ()), means, do))
    return ends


def _told(method: str) -> dict[str, str]:
    """Give the status of each reason that the docs tell."""
    return {reason: status for status, reasons, _, _ in _ends_in_docs(method) for reason in reasons}


def _named(module: str, known: dict[str, set[str]]) -> set[str]:
    """Give the reasons that a module names, itself or by a function that makes an error."""
    tree = ast.parse((_ROOT / f"morag_meta/{module}.py").read_text())
    found: set[str] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and (node.value.id == "Reason")
        ):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found |= known.get(node.id, set())
    return found


def _makers() -> dict[str, set[str]]:
    """Give the reasons of the functions that make errors for everybody."""
    tree = ast.parse((_ROOT / "morag_meta/errors.py").read_text())
    return {
        function.name: {
            node.attr
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "Reason"
        }
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
    }


@pytest.mark.parametrize("method", _METHODS)
def test_the_proto_and_the_page_tell_the_same_ends_in_the_same_words(method: str) -> None:
    """Status, reasons, what they mean and what to do: row by row, in one order."""
    told = _ends_in_docs(method)
    assert len(told) > 10
    assert _ends_in_proto(method) == told


@pytest.mark.parametrize("method", _METHODS)
def test_every_reason_on_a_streams_way_is_told_or_cannot_end_it(method: str) -> None:
    """What the code names is told, but for what is said here to be no end; nothing else is told."""
    makers = _makers()
    named = set().union(*(_named(module, makers) for module in _PATHS[method]))
    never = _NEVER_OF[method].keys() & named
    assert named - never == _told(method).keys()


@pytest.mark.parametrize("method", _METHODS)
def test_every_reason_is_told_with_its_status(method: str) -> None:
    """The status beside a reason is the one that the catalogue of reasons gives it."""
    catalogue = (_ROOT / "protos/moragmeta/v1/errors.proto").read_text()
    told = _told(method)
    assert told
    for reason, status in told.items():
        comment = re.search(rf"((?:  //.*\n)+)  ERROR_REASON_{reason} =", catalogue)
        assert comment is not None
        assert f"({status}" in comment.group(1), reason


@pytest.mark.parametrize("method", _METHODS)
def test_what_is_no_end_of_a_stream_is_so_by_its_declaration(method: str) -> None:
    """A key may call both methods, a narrowed one too; and every reason set aside is one."""
    declared = (
        jobs_pb2.DESCRIPTOR.services_by_name["JobService"]
        .methods_by_name[method]
        .GetOptions()
        .Extensions[options_pb2.access]
    )
    assert declared.scopes
    assert declared.narrowed_keys == options_pb2.NARROWED_KEYS_ADMITTED
    assert _NEVER_OF[method].keys() <= {reason.value for reason in Reason}


def test_every_module_that_names_a_reason_is_on_a_streams_way_or_set_aside() -> None:
    """A new one in the folders that a stream's call goes through has to be put to one side or the other."""
    makers = _makers()
    modules = {
        str(path.relative_to(_ROOT / "morag_meta").with_suffix(""))
        for folder in ("auth", "db", "jobs", "rpc")
        for path in (_ROOT / "morag_meta" / folder).glob("*.py")
    }
    naming = {module for module in modules if _named(module, makers)}
    on_the_way = set().union(*_PATHS.values())
    assert on_the_way <= modules
    assert naming - on_the_way == _ASIDE.keys()


def test_workers_are_told_what_to_do_at_each_limit() -> None:
    """docs/workers.md says what to do at a rate limit and without a place to wait in, as the proto does."""
    page = (_ROOT / "docs/workers.md").read_text()
    proto = (_ROOT / "protos/moragmeta/v1/workers.proto").read_text()
    lease = proto[: proto.index("  rpc LeaseJobs(")].rpartition("\n\n")[2]
    assert "RATE_LIMITED" in page
    assert "TOO_MANY_STREAMS" in page
    assert "TOO_MANY_STREAMS" in lease
