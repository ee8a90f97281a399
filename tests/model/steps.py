"""A step of a walk, and what was answered to it: the same in the model and on the wire.

Things are called by labels, which say what they are and in which step they were made: ``d17`` is the
document of step 17. So a step means the same in another run, and where others were left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

NOBODY: Final = ""
"""The caller who shows no credential."""
GARBAGE: Final = "garbage"
"""The caller whose credential is none."""

ROOT, ROOT_KEY = "u0", "k0"
"""The ADMIN with whom every walk begins, and the key of every scope."""

MADE_BY: Final[Mapping[str, str]] = {
    "RegisterUser": "u",
    "Login": "s",
    "CreateApiKey": "k",
    "RotateApiKey": "k",
    "CreateServer": "v",
    "CreateDatabase": "b",
    "CreateDocument": "d",
    "BatchCreateDocuments": "e",
    "CreateJob": "j",
    "RetryJob": "j",
    "RegisterWorker": "w",
}
"""The first letter of the label of what a method makes; the rest is the step's number.

What a batch makes is counted by two more digits.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A call: ``given`` is the request as JSON, with labels in place of ids, tokens and secrets."""

    number: int
    caller: str
    method: str
    given: dict[str, Any]

    def __str__(self) -> str:
        """Give the step in a line."""
        return f"{self.number}: {self.caller or 'nobody'} {self.method} {json.dumps(self.given)}"

    @property
    def made(self) -> str:
        """The label of what it makes, if it makes something."""
        return f"{MADE_BY[self.method]}{self.number}"

    @property
    def all_made(self) -> list[str]:
        """The labels of all that it makes, or would make where it finds nothing; of a batch one each."""
        if self.method not in MADE_BY:
            return []
        if "requests" not in self.given:
            return [self.made]
        return [f"{self.made}{place:02}" for place in range(len(self.given["requests"]))]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call is answered: the code, with the reason of a refusal or the content of an answer.

    The content is the message as plain values, without what is empty, and with labels in place of ids;
    of a list, all pages.
    """

    code: str = "OK"
    reason: str = ""
    content: Any = None

    def __str__(self) -> str:
        """Give the answer in a line."""
        return f"{self.code} {self.reason or json.dumps(self.content, sort_keys=True)}"


class Refused(Exception):
    """The model's refusal of a call."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.answer = Answer(code, reason)


def denied(reason: str) -> Refused:
    """Give the refusal of who lacks a permission."""
    return Refused("PERMISSION_DENIED", reason)


def missing() -> Refused:
    """Give the refusal for what is not there, or not the caller's."""
    return Refused("NOT_FOUND", "RESOURCE_NOT_FOUND")


def taken() -> Refused:
    """Give the refusal of a name that something else has."""
    return Refused("ALREADY_EXISTS", "RESOURCE_EXISTS")


def stuck(reason: str = "INVALID_STATE") -> Refused:
    """Give the refusal of what the state does not allow."""
    return Refused("FAILED_PRECONDITION", reason)


def wrong_field() -> Refused:
    """Give the refusal of a value that is not allowed here."""
    return Refused("INVALID_ARGUMENT", "INVALID_FIELD")


def present(**fields: Any) -> dict[str, Any]:
    """Give those fields that a message shows: not what is empty."""
    return {name: value for name, value in fields.items() if value not in (None, "", 0, False, [], {})}


def write(steps: Iterable[Step], path: Path) -> None:
    """Keep a walk in a file, a step a line."""
    lines = (json.dumps([step.number, step.caller, step.method, step.given]) for step in steps)
    path.write_text("".join(f"{line}\n" for line in lines))


def read(path: Path) -> list[Step]:
    """Read a walk that was kept."""
    return [Step(*json.loads(line)) for line in path.read_text().splitlines()]
