"""Who calls: from the metadata of a call to a principal, through a cache that a revoke empties.

An entry of the cache counts while the epoch under which it was read is the newest one known, and while
that is trusted (``auth/epoch.py``). Key, user and epoch are read in one statement, so a revoke that
commits beside the reading cannot be missed: the entry then carries the older epoch. What a principal may
do is ``rpc/access.py``'s matter.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morag_meta.auth.addresses import address_of, is_allowed
from morag_meta.auth.epoch import EpochWatch
from morag_meta.auth.generations import found_by
from morag_meta.auth.keys import KeyHasher, is_key
from morag_meta.auth.principal import Principal
from morag_meta.auth.rates import Rates
from morag_meta.auth.standing import UNKNOWN, Standing, standing_of
from morag_meta.auth.store import StandingStore
from morag_meta.auth.tokens import Tokens, is_access_token
from morag_meta.auth.usage import KeyUsage
from morag_meta.db.database import Database
from morag_meta.db.unit import Row
from morag_meta.errors import Forbidden, Reason, Unauthenticated
from morag_meta.uow import UnitOfWork

KEY_HEADER: Final = "x-api-key"
BEARER_HEADER: Final = "authorization"

_REFUSED_SECONDS: Final = 3.0
Reading = Callable[[StandingStore], Row]
Place = str | tuple[str, ...]
"""Where something is remembered: a credential by its hashes of every key in force, so that none is known by
a key that no longer is."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of a credential, as of ``epoch``, until then (Unix seconds)."""

    standing: Standing
    epoch: int
    until: float


class _Cache:
    """The entries used last, at most so many."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Place, _Entry] = OrderedDict()

    def get(self, place: Place) -> _Entry | None:
        entry = self._entries.get(place)
        if entry is not None:
            self._entries.move_to_end(place)
        return entry

    def put(self, place: Place, entry: _Entry) -> None:
        self._entries[place] = entry
        self._entries.move_to_end(place)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def drop(self, place: Place) -> None:
        self._entries.pop(place, None)


class Authenticator:
    """Proves who calls; for the event loop's thread."""

    def __init__(
        self,
        database: Database,
        hasher: KeyHasher,
        tokens: Tokens,
        epochs: EpochWatch,
        usage: KeyUsage,
        rates: Rates,
        *,
        cache_size: int = 10_000,
    ) -> None:
        """Prove through these parts, remembering at most ``cache_size`` principals, and as many refusals."""
        self._rates = rates
        self._database = database
        self._hasher = hasher
        self._tokens = tokens
        self._epochs = epochs
        self._usage = usage
        self._principals = _Cache(cache_size)
        # Refusals have a room of their own, so that a flood of made-up keys drives no principal out.
        self._refusals = _Cache(cache_size)

    async def authenticate(self, metadata: Mapping[str, Any], peer: str = "") -> Principal:
        """Give the principal of a call's credential: ``x-api-key``, else ``authorization: Bearer``.

        Either may carry an API key or an access token. A known one takes some microseconds and touches no
        database. ``peer`` is gRPC's name of who is at the other end.

        Raises:
            Unauthenticated: CREDENTIAL_MISSING, or CREDENTIAL_INVALID, which does not say why.
            Forbidden: the key is bound to other addresses (ADDRESS_NOT_ALLOWED).
            Exhausted: too many API keys that do not exist came from there (RATE_LIMITED).
            Unavailable: the credential is not known yet, or no longer trusted, and the database is away.
        """
        credential = _credential(metadata)
        place = self._hasher.digests(credential)
        now = time.time()
        entry = self._known(place, now)
        if entry is None:
            entry = await self._look_up_once(place, credential, peer)
        principal = entry.standing.principal
        if principal is None:
            raise refused(entry.standing.holder)
        check_address(principal, peer)
        if principal.key_id:
            self._usage.note(principal.key_id, now)
        return principal

    async def standing_of_key(self, text: str) -> Standing:
        """Say what is known of an API key that somebody else was sent; it is no use of the key.

        Raises:
            Unavailable: as ``authenticate``.
        """
        if not is_key(text):
            return UNKNOWN
        place = self._hasher.digests(text)
        entry = self._known(place, time.time()) or await self._look_up(place, text)
        return entry.standing

    async def recheck(self, principal: Principal, peer: str = "") -> Principal:
        """Give the principal as it now is, for a call that goes on for long.

        Raises:
            Unauthenticated: its key, session or user no longer stands, or the credential has expired.
            Forbidden: its key is bound to other addresses now.
            Unavailable: that is not known, and the database is away.
        """
        if not principal.key_id and _is_over(principal.expire_time):
            raise refused()  # an access token's own end, before its session's
        place = _place_of(principal)
        entry = self._known(place, time.time()) or await self._read(place, _reading_of(principal), None)
        present = entry.standing.principal
        if present is None:
            raise refused()
        check_address(present, peer)
        return present

    async def read_ahead(self, principals: Iterable[Principal]) -> None:
        """Read at once what ``recheck`` would have to read of each of them.

        Raises:
            Unavailable: the database is away.
        """
        now = time.time()
        unknown = [each for each in principals if self._known(_place_of(each), now) is None]
        if not unknown:
            return

        def read(uow: UnitOfWork) -> tuple[list[Row], float]:
            read_at = time.monotonic()
            return [_reading_of(each)(StandingStore(uow)) for each in unknown], read_at

        rows, read_at = await self._database.read(read, point=True)
        for principal, row in zip(unknown, rows, strict=True):
            self._remember(_place_of(principal), row, read_at, None)

    def _known(self, place: Place, now: float) -> _Entry | None:
        entry = self._principals.get(place) or self._refusals.get(place)
        if entry is not None and now < entry.until and self._epochs.counts(entry.epoch):
            return entry
        return None

    async def _look_up_once(self, place: tuple[str, ...], credential: str, peer: str) -> _Entry:
        """Look a caller up, unless it would be one made-up key too many of an address.

        Whoever was let in before is looked up again whatever its address did.
        """
        is_stranger = is_key(credential) and self._principals.get(place) is None
        if is_stranger:
            self._rates.check_stranger(peer)
        entry = await self._look_up(place, credential)
        if is_stranger and entry.standing.holder is None:
            self._rates.note_stranger(peer)
        return entry

    async def _look_up(self, place: tuple[str, ...], credential: str) -> _Entry:
        if is_key(credential):
            return await self._read(place, _hash_reading(place), None)
        if not is_access_token(credential):
            raise refused()
        claims = self._tokens.verify(credential)
        return await self._read(place, _session_reading(claims.session_id), claims.expire_time)

    async def _read(self, place: Place, reading: Reading, end: dt.datetime | None) -> _Entry:
        """Read a standing and remember it; ``end`` is when the credential ends, if not by its row."""

        def read(uow: UnitOfWork) -> tuple[Row, float]:
            read_at = time.monotonic()
            return reading(StandingStore(uow)), read_at

        row, read_at = await self._database.read(read, point=True)
        return self._remember(place, row, read_at, end)

    def _remember(self, place: Place, row: Row, read_at: float, end: dt.datetime | None) -> _Entry:
        self._epochs.note(row["epoch"], read_at)
        standing = standing_of(row, end, dt.datetime.now(dt.UTC))
        principal = standing.principal
        if principal is None:
            entry = _Entry(standing, row["epoch"], time.time() + _REFUSED_SECONDS)
            self._refusals.put(place, entry)
            self._principals.drop(place)
        else:
            until = principal.expire_time
            entry = _Entry(standing, row["epoch"], math.inf if until is None else until.timestamp())
            self._principals.put(place, entry)
            self._refusals.drop(place)
        return entry


def _hash_reading(hashes: tuple[str, ...]) -> Reading:
    def read(store: StandingStore) -> Row:
        row: Row = {}

        def find(key_hash: str) -> Row | None:
            nonlocal row
            row = store.of_key(key_hash)  # which has the epoch also where there is no such key
            return None if row["credential_id"] is None else row

        return found_by(hashes, find) or row

    return read


def _place_of(principal: Principal) -> Place:
    """Name the place of what is known of a caller whose credential was proven before."""
    return f"key {principal.key_id}" if principal.key_id else f"session {principal.session_id}"


def _reading_of(principal: Principal) -> Reading:
    return lambda store: store.of_principal(principal)


def _session_reading(session_id: str) -> Reading:
    return lambda store: store.of_session(session_id)


def _credential(metadata: Mapping[str, Any]) -> str:
    key = metadata.get(KEY_HEADER)
    if key:
        return str(key)
    header = metadata.get(BEARER_HEADER)
    if not header:
        raise Unauthenticated(
            f"send {KEY_HEADER}: <key>, or {BEARER_HEADER}: Bearer <key or access token>",
            reason=Reason.CREDENTIAL_MISSING,
        )
    scheme, _, value = str(header).partition(" ")
    if scheme.lower() != "bearer":
        raise refused()
    return value.strip()


def check_address(principal: Principal, peer: str) -> None:
    """Refuse a caller whose key is bound to other addresses than that of gRPC's ``peer``.

    Raises:
        Forbidden: ADDRESS_NOT_ALLOWED.
    """
    if not principal.addresses:
        return
    address = address_of(peer)
    if not is_allowed(principal.addresses, address):
        forbidden = Forbidden(
            f"the API key is not to be used from {address or 'an unknown address'}",
            reason=Reason.ADDRESS_NOT_ALLOWED,
            metadata={"address": address},
        )
        forbidden.holder = principal
        raise forbidden


def _is_over(time: dt.datetime | None) -> bool:
    return time is not None and time <= dt.datetime.now(dt.UTC)


def refused(holder: Principal | None = None) -> Unauthenticated:
    """Say that a credential opens nothing, in the same words whatever the cause."""
    error = Unauthenticated("the credential is not valid", reason=Reason.CREDENTIAL_INVALID)
    error.holder = holder
    return error
