"""Requests that were damaged on the way, to every RPC: any byte may be another, missing, or one too many."""

from __future__ import annotations

import random
from typing import Any, Final

import grpc
import pytest
from google.rpc import status_pb2

from tests.access.estate import REQUESTS, Estate
from tests.access.stage import BY_NAME, Stage
from tests.access.table import ROWS
from tests.access.test_injection import CLIENTS_FAULT

pytestmark = pytest.mark.usefixtures("nothing_collected")

_EACH: Final = 30
_ODD: Final = (b"\x00", b"\x7f", b"\x80", b"\xff", b"\xff" * 10, b"\x0a", b"\xc3\x28")


def _damaged(chance: random.Random, data: bytes) -> bytes:
    """Damage a request once or a few times; what was empty becomes something."""
    changed = bytearray(data or b"\x0a\x01a")
    for _ in range(chance.choice((1, 1, 1, 3))):
        place = chance.randrange(len(changed) + 1)
        end = min(place + chance.choice((1, 1, 4, 16)), len(changed))
        way = chance.randrange(4)
        if way == 0:
            changed[place:end] = b""
        elif way == 1:
            changed[place:place] = chance.choice(_ODD)
        elif way == 2:
            changed[place:end] = chance.randbytes(end - place)
        else:
            changed += changed[place:end]
    return bytes(changed)


def _code(stage: Stage, title: str, data: bytes, metadata: Any) -> str:
    method = BY_NAME[ROWS[title].method]
    channel: Any = stage.service.admin.channel.raw
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.server_streaming:
            stream = channel.unary_stream(path)(data, metadata=metadata, timeout=10)
            next(stream)
            stream.cancel()
        else:
            channel.unary_unary(path)(data, metadata=metadata, timeout=10)
    except grpc.RpcError as caught:
        error: Any = caught
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
        told = status_pb2.Status.FromString(details).details
        return str(error.code().name) if told else f"{error.code().name} without details: {error.details()}"
    return "OK"


@pytest.mark.parametrize("title", ROWS)
def test_no_damaged_request_is_the_servers_fault(stage: Stage, estate: Estate, title: str) -> None:
    """A damaged request is carried out as what it now says, or refused in details as the client's fault."""
    chance = random.Random(title)  # noqa: S311 - which bytes, the same in each run
    row, wrong = ROWS[title], []
    whole = REQUESTS[title](estate).SerializeToString()
    metadata = stage.owns(estate, row)
    for _ in range(_EACH):
        data = _damaged(chance, whole)
        code = _code(stage, title, data, metadata)
        if code not in {"OK", *CLIENTS_FAULT}:
            wrong.append(f"{code}: {data!r}")
        if code == "OK":
            whole, metadata = REQUESTS[title](estate).SerializeToString(), stage.owns(estate, row)
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def estate(stage: Stage) -> Estate:
    """Give somebody whose requests are damaged."""
    return Estate(stage.service, {})
