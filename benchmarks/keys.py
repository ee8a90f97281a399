"""VerifyApiKey beside ever more keys: of keys that the server has not seen yet, and of one that it knows.

Each number of keys has a database and a server of its own, and they are asked in turns. Most keys are rows
with made-up hashes, written past the service; those that are asked about are keys.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.data import SECRET, Filled, fill
from benchmarks.load import Callers, Target
from benchmarks.processes import cpu_seconds, cpu_since, served
from benchmarks.rounds import Spread
from benchmarks.wire import call_headers
from morag_meta.auth.authenticator import KEY_HEADER
from morag_meta.auth.keys import KeyHasher, new_key, prefix_of
from morag_meta.auth.secret import RootSecret
from morag_meta.db.database import Database
from morag_meta.db.schema import api_keys
from moragmeta.v1 import api_keys_pb2

SIZES: Final = (1_000, 100_000, 1_000_000)
_ASKED: Final = 900
"""Keys that are asked about; each is unknown to its server but once."""
_AT_ONCE: Final = 10_000
_VERIFY: Final = "/moragmeta.v1.ApiKeyService/VerifyApiKey"


@dataclass(frozen=True, slots=True)
class Asked:
    """Seconds of a call as its caller has them, and the server's processor seconds of it."""

    latency: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Verification:
    """By the number of keys, and each against the fewest in the same round, by processor time."""

    cold: dict[int, Asked]
    cached: dict[int, Asked]
    cold_ratio: dict[int, Spread]
    cached_ratio: dict[int, Spread]


def compare(kind: str, new_url: Callable[[], str], sizes: Sequence[int], *, rounds: int) -> Verification:
    """Make the databases, and ask in turns."""
    written = {size: _written(kind, new_url(), size) for size in sizes}
    with contextlib.ExitStack() as stack:
        sides = {size: _Side(stack, *written[size], rounds) for size in sizes}
        cold: list[dict[int, Asked]] = []
        cached: list[dict[int, Asked]] = []
        for _ in range(rounds):
            order = random.sample(sizes, len(sizes))
            cold.append({size: sides[size].ask_unknown() for size in order})
            cached.append({size: sides[size].ask_known() for size in order})

    def median(taken: list[dict[int, Asked]]) -> dict[int, Asked]:
        return {
            size: Asked(
                statistics.median(each[size].latency for each in taken),
                statistics.median(each[size].cpu for each in taken),
            )
            for size in sizes
        }

    def ratio(taken: list[dict[int, Asked]]) -> dict[int, Spread]:
        return {
            size: Spread.of([each[size].cpu / each[sizes[0]].cpu for each in taken]) for size in sizes[1:]
        }

    return Verification(median(cold), median(cached), ratio(cold), ratio(cached))


class _Side:
    """A server of so many keys, and one caller."""

    def __init__(self, stack: contextlib.ExitStack, filled: Filled, keys: list[str], rounds: int) -> None:
        process = stack.enter_context(served(filled.environment))
        self._pid = process.pid
        self._callers = Callers(process.port, 1)
        stack.callback(self._callers.close)
        self._headers = call_headers(_VERIFY, (KEY_HEADER, filled.key))
        self._known = keys.pop()
        self._each = len(keys) // (rounds + 1)
        self._unknown = iter(keys)
        self.ask_unknown()  # statements compile, and pages are read

    def ask_unknown(self) -> Asked:
        """Ask about keys that the server has not seen."""
        return self._asked(list(itertools.islice(self._unknown, self._each)))

    def ask_known(self) -> Asked:
        """Ask about one key again and again."""
        self._ask(self._known)
        return self._asked([self._known] * self._each)

    def _asked(self, keys: list[str]) -> Asked:
        before = cpu_seconds([self._pid])
        latency = statistics.median(map(self._ask, keys))
        return Asked(latency, cpu_since(before) / len(keys))

    def _ask(self, key: str) -> float:
        request = api_keys_pb2.VerifyApiKeyRequest(key=key).SerializeToString()
        started = time.perf_counter()
        answer = self._callers.ask(Target(self._headers, lambda: request))
        took = time.perf_counter() - started
        verdict = api_keys_pb2.VerifyApiKeyResponse.FromString(answer).verdict
        if verdict != api_keys_pb2.API_KEY_VERDICT_VALID:
            raise RuntimeError("a key that was written is not there")
        return took


def _written(kind: str, url: str, size: int) -> tuple[Filled, list[str]]:
    """Make a database of so many keys; give it with those that are asked about."""
    filled, keys = fill(kind, url), [new_key() for _ in range(_ASKED)]
    _write(filled, keys, size)
    return filled, keys


def _write(filled: Filled, keys: list[str], size: int) -> None:
    """Write the keys, among as many others as make the number full."""
    hasher = KeyHasher(RootSecret.from_text(SECRET).subkey("api-key"))
    places = set(random.sample(range(size), len(keys)))
    known = iter(keys)
    database = Database.open(filled.url)
    try:
        with database.engine.connect() as connection:
            template = dict(connection.execute(sa.select(api_keys).limit(1)).mappings().one())
            for start in range(0, size, _AT_ONCE):
                rows = list(_rows(template, range(start, min(start + _AT_ONCE, size)), places, known, hasher))
                connection.exec_driver_sql("BEGIN")
                connection.execute(sa.insert(api_keys), rows)
                connection.exec_driver_sql("COMMIT")
            connection.exec_driver_sql("ANALYZE")
    finally:
        database.close()


def _rows(
    template: dict[str, Any], numbers: range, places: set[int], known: Iterator[str], hasher: KeyHasher
) -> Iterator[dict[str, Any]]:
    for number in numbers:
        secret = next(known) if number in places else ""
        yield {
            **template,
            "id": f"00000000-0000-7000-8000-{number:012x}",
            "name": f"key {number}",
            "key_hash": hasher.digest(secret) if secret else secrets.token_hex(32),
            "key_prefix": prefix_of(secret or "morag_unknown"),
        }
