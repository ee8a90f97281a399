"""What makes the whole suite a search for leaks, as a plugin of pytest.

Whatever client of whichever server calls from this process, its secrets are collected as its messages are
written and read: the fields that the protos call redacted, but for personal data, which the service is there
to keep. They are searched for in what each test printed and logged, in the texts and details of errors, and
in each database before it goes (``tests/backends``). A find fails the test beside which it is made.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Final

import bcrypt
import pytest
import structlog
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from grpc import _channel
from grpc.aio import _channel as _aio_channel

from morag_meta.auth.keys import KeyHasher, is_key
from morag_meta.rpc import status
from moragmeta.v1 import options_pb2
from tests.leaks.collected import LEASES, SECRETS, Leaked, check

_PERSONAL: Final = frozenset({"name", "email", "avatar", "username"})
_MOST_BYTES: Final = 4096
"""A longer private file is no secret's, but a database or the like."""
_LOGGER: Final = structlog.get_config()["wrapper_class"]
_texts: list[tuple[str, bytes]] = []
"""What was told to callers since the last look."""


def note_text(where: str, text: str | bytes) -> None:
    """Keep what was told to somebody, to be looked at when the test ends."""
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    _texts.append((where, data))


def note_log(path: Path) -> None:
    """Look at the log of a server that has ended."""
    if path.is_file():
        note_text(f"the log {path.name}", path.read_bytes())


@functools.cache
def _is_secret(field: Any) -> bool:
    return bool(field.GetOptions().Extensions[options_pb2.redacted]) and field.name not in _PERSONAL


@functools.cache
def _holds_secrets(message: Descriptor) -> bool:
    return message.file.package == "moragmeta.v1" and any(
        _is_secret(field) or (field.message_type is not None and _holds_secrets(field.message_type))
        for field in message.fields
    )


def collect(message: Message) -> None:
    """Keep the secrets of a message."""
    for field, value in message.ListFields():
        if _is_secret(field):
            leases = "lease" in field.full_name.lower()
            (LEASES if leases else SECRETS).add(field.full_name.removeprefix("moragmeta.v1."), value)
        elif field.message_type is not None and _holds_secrets(field.message_type):
            for item in value if field.is_repeated else (value,):
                collect(item)


def _writing(serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
    if serialize is None:
        return None

    def write(message: Any) -> bytes:
        if isinstance(message, Message) and _holds_secrets(message.DESCRIPTOR):
            collect(message)
        return serialize(message)

    return write


def _reading(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        message = deserialize(data)
        if isinstance(message, Message) and _holds_secrets(message.DESCRIPTOR):
            collect(message)
        return message

    return read


def _watch_calls(patch: pytest.MonkeyPatch, channel: type[Any], method: str) -> None:
    rightly = getattr(channel, method)

    def called(
        self: Any, path: str, serialize: Any = None, deserialize: Any = None, *more: Any, **named: Any
    ) -> Any:
        serialize = named.pop("request_serializer", serialize)
        deserialize = named.pop("response_deserializer", deserialize)
        return rightly(self, path, _writing(serialize), _reading(deserialize), *more, **named)

    patch.setattr(channel, method, called)


def _watch_errors(patch: pytest.MonkeyPatch) -> None:
    refused = _channel._InactiveRpcError.__init__  # noqa: SLF001 - there is no other place where all come by

    def made(self: Any, state: Any) -> None:
        refused(self, state)
        note_text("the status of a call", f"{self.details()} {self.trailing_metadata()}")

    patch.setattr(_channel._InactiveRpcError, "__init__", made)  # noqa: SLF001
    details_of = status.details_of

    def told(error: Any) -> bytes:
        details = details_of(error)
        note_text("the details of an error", details)
        return details

    patch.setattr(status, "details_of", told)


def _watch_keys_and_passwords(patch: pytest.MonkeyPatch) -> None:
    """Keep what is made or checked without a call: keys that tests write, passwords at the command line."""
    digest = KeyHasher.digest

    def hashed(self: KeyHasher, secret: str) -> str:
        if is_key(secret):
            SECRETS.add("an API key", secret)
        return digest(self, secret)

    patch.setattr(KeyHasher, "digest", hashed)
    for name in ("hashpw", "checkpw"):
        patch.setattr(bcrypt, name, _with_password(getattr(bcrypt, name)))


def _with_password(work: Callable[[bytes, bytes], Any]) -> Callable[[bytes, bytes], Any]:
    def with_password(password: bytes, more: bytes) -> Any:
        SECRETS.add("a password", bytes(password))
        return work(password, more)

    return with_password


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin to collect."""
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for channel in (_channel.Channel, _aio_channel.Channel):
        for method in ("unary_unary", "unary_stream"):
            _watch_calls(patch, channel, method)
    _watch_errors(patch)
    _watch_keys_and_passwords(patch)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that leaves the log of this process as it set it up: others would say, and show, less."""
    yield
    level = structlog.get_config()["wrapper_class"]
    if level is not _LOGGER:
        structlog.reset_defaults()
        raise AssertionError(f"{item.nodeid} leaves the log at another level; see restored_logging")


@pytest.fixture
def nothing_collected() -> Iterator[None]:
    """Collect nothing: a test that writes one text into every field has no secrets of its own."""
    SECRETS.paused = LEASES.paused = True
    yield
    SECRETS.paused = LEASES.paused = False


def _told(report: pytest.TestReport) -> Iterator[tuple[str, bytes]]:
    """Give what a test printed and logged, and what was told beside it."""
    for name, text in report.sections:
        yield name, text.encode(errors="surrogatepass")
    while _texts:
        yield _texts.pop()


def _collect_files(folder: Path) -> None:
    """Keep what stands in a test's private files: the secrets that its own processes made for themselves."""
    for inner, _, names in os.walk(folder):  # which passes over what may not be looked into
        for path in (Path(inner, name) for name in names):
            with contextlib.suppress(OSError):  # a process is still at work, or nobody may read it
                found = path.lstat()
                private = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
                if private and found.st_size <= _MOST_BYTES:
                    for secret in re.findall(rb"[A-Za-z0-9+/=_-]{32,}", path.read_bytes()):
                        SECRETS.add(f"the file {path.name}", secret)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test in whose output, log or errors a secret stands."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.when == "call" and folder is not None:
        _collect_files(folder)
    for where, text in _told(report):
        try:
            check(where, text)
        except Leaked as leaked:
            report.outcome = "failed"
            report.longrepr = f"{leaked}\n{report.longrepr or ''}"
    return report
