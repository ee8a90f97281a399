"""Changing the root secret and the credential key for next ones, while processes serve by them.

Each step is one file replaced, or rows renewed in a transaction, and how far it got stands in the files: so
whoever is killed between two steps is followed by whoever runs the same again.

1. A next generation is announced in every file: it is accepted, and makes nothing.
2. After a pause, in which every process looks at the files, it makes, and the one before is accepted.
3. After another pause, in which what the one before began to make is kept, all rows are renewed.
4. When no client can hold anything of the one before, that is removed.

Secrets that come from the environment are changed there, by whoever starts the processes; then only rows are
renewed here. What is renewed stands in ``server/renewing.py``, and the files' text in
``auth/secret_files.py``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from morag_meta.audit.actions import note_operator
from morag_meta.auth import private_file
from morag_meta.auth.credentials import CredentialRing
from morag_meta.auth.secret import RootSecrets
from morag_meta.auth.secret_files import Phase, RingFile, RootFile, read_ring, read_root
from morag_meta.auth.tokens import ACCESS_LIFE
from morag_meta.config.settings import Settings
from morag_meta.server.preparation import opened, require_schema
from morag_meta.server.renewing import Held, Renewing
from morag_meta.server.secrets import credential_rings, ring_file, root_file, root_secrets
from morag_meta.wording import number_of

PAUSE_SECONDS: Final = 5.0
"""Between two steps: longer than ``auth/watched_file.py``'s, and than what a call takes to write its rows."""
_PASSES: Final = 5


class RotationError(Exception):
    """The secrets are not changed; the message is one line for a person."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far it is: the phase of each secret, and what only an old generation can read."""

    root: Phase | None
    """None where the environment holds it."""
    ring: Phase | None
    held: Held
    access_end: dt.datetime | None
    """Until when an access token of the generation before may be held, if one may."""

    @property
    def is_settled(self) -> bool:
        """Whether no file has more than one generation."""
        return {self.root, self.ring} <= {None, Phase.SETTLED}

    @property
    def is_finished(self) -> bool:
        """Whether each secret has one generation, wherever it is, and nothing is of another."""
        held = self.held
        single = self.is_settled and len(held.root.rows) == len(held.ring.rows) == 1
        return single and not held.rows and not held.sessions

    @property
    def end(self) -> dt.datetime | None:
        """From when on nothing of a client would be cut off; None for now."""
        return max((each for each in (self.access_end, self.held.last_session) if each), default=None)


class Rotation:
    """One installation's secrets, and how they are changed."""

    def __init__(
        self, settings: Settings, tell: Callable[[str], None], *, pause: float = PAUSE_SECONDS
    ) -> None:
        """Tell each step in one line, and wait ``pause`` seconds between those that need it."""
        self._settings = settings
        self._tell = tell
        self._pause = pause
        self._has_renewed = False

    def run(self, *, cut_off: bool = False) -> Standing:
        """Change every secret that is in a file, as far as it goes, and say how far that is.

        With ``cut_off`` it goes to the end, and ends the sessions that the generation before would go on.

        Raises:
            RotationError: another one is at it, or the environment holds all secrets and only one generation.
            ConfigurationError: a file is lost or cannot be used.
            MigrationError, MetaError: the database is not ready, or fails.
        """
        require_schema(self._settings)
        with self._alone():
            self._announce()
            self._switch()
            standing = self._renew()
            if self._is_over(standing, cut_off=cut_off):
                self._end(standing)
            return self._with_wait(self.standing())

    def standing(self) -> Standing:
        """Say how far it is; raises as ``run``."""
        require_schema(self._settings)
        with self._renewing() as renewing:
            return self._standing(renewing.held())

    def _announce(self) -> None:
        states = {path: read(path) for path, read in self._files().items()}
        if any(state.phase is Phase.PREVIOUS for state in states.values()):
            return  # all were announced, and those that are settled are done
        if any(state.phase is Phase.SETTLED for state in states.values()):
            self._note("secrets.begin_rotation")
        for path, state in states.items():
            private_file.remove_leftovers(path)
            if state.phase is Phase.SETTLED:
                private_file.replace(path, state.announced().text)
                self._tell(f"{path}: the next generation is accepted")

    def _switch(self) -> None:
        coming = [path for path, read in self._files().items() if read(path).phase is Phase.NEXT]
        if coming:
            time.sleep(self._pause)
        for path in coming:
            now = dt.datetime.now(dt.UTC)
            private_file.replace(path, self._files()[path](path).switched(now).text)
            self._tell(f"{path}: the next generation makes, the one before is accepted")

    def _renew(self) -> Standing:
        if self._files():
            time.sleep(self._pause)
        with self._renewing() as renewing:
            for _ in range(_PASSES):
                done = {name: rows for name, rows in renewing.renew().items() if rows}
                if done:
                    self._has_renewed = True
                    self._note("secrets.renew_rows")
                    self._tell("renewed " + ", ".join(f"{rows} {name}" for name, rows in done.items()))
                held = renewing.held()
                if not done or not held.rows:
                    break
            return self._standing(held)

    def _is_over(self, standing: Standing, *, cut_off: bool) -> bool:
        if cut_off:
            return True
        now = dt.datetime.now(dt.UTC)
        return not standing.held.rows and not standing.held.sessions and (standing.end or now) <= now

    def _end(self, standing: Standing) -> None:
        with self._renewing() as renewing:
            ended = renewing.end_sessions() if standing.held.sessions else 0
        if ended:
            self._tell(f"ended {number_of(ended, 'session')}")
        changed = [path for path, read in self._files().items() if read(path).phase is Phase.PREVIOUS]
        for path in changed:
            private_file.replace(path, self._files()[path](path).ended().text)
            self._tell(f"{path}: the generation before is removed")
        if changed:
            self._note("secrets.rotate")

    def _note(self, event: str) -> None:
        with opened(self._settings) as database, database.unit_of_work() as uow:
            note_operator(uow, "secrets rotate", event)
            uow.commit()

    def _with_wait(self, standing: Standing) -> Standing:
        """Add how long access tokens last, where the environment has the secret and rows were just renewed.

        When the one before ceased to make is not known here: at the latest now, as the steps go.
        """
        if standing.root is not None or len(standing.held.root.rows) == 1 or not self._has_renewed:
            return standing
        return replace(standing, access_end=dt.datetime.now(dt.UTC) + ACCESS_LIFE)

    def _standing(self, held: Held) -> Standing:
        settings, root, ring, end = self._settings, None, None, None
        if settings.secret_key is None:
            file = read_root(root_file(settings), create=False)
            root = file.phase
            if file.since is not None:
                # Access tokens of the one before were made a little longer than that.
                end = file.since + ACCESS_LIFE + dt.timedelta(seconds=self._pause)
                end = end if end > dt.datetime.now(dt.UTC) else None
        if settings.credential_keys is None:
            ring = read_ring(ring_file(settings), create=False).phase
        return Standing(root, ring, held, end)

    def _files(self) -> dict[Path, Callable[[Path], RootFile | RingFile]]:
        """Give the files that hold secrets, and what reads each; none where the environment does."""
        files: dict[Path, Callable[[Path], RootFile | RingFile]] = {}
        if self._settings.secret_key is None:
            files[root_file(self._settings)] = lambda path: read_root(path, create=False)
        if self._settings.credential_keys is None:
            files[ring_file(self._settings)] = lambda path: read_ring(path, create=False)
        return files

    @contextlib.contextmanager
    def _renewing(self) -> Iterator[Renewing]:
        with opened(self._settings) as database:
            yield Renewing(database, self._secrets(), self._ring())

    def _secrets(self) -> RootSecrets:
        in_force = root_secrets(self._settings).in_force()
        return RootSecrets(lambda: in_force)

    def _ring(self) -> CredentialRing:
        return credential_rings(self._settings)()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock that ends with the process, however that ends."""
        files = list(self._files())
        if not files:
            if len(self._secrets().in_force()) == 1 and self._ring().is_single:
                raise RotationError(
                    "MORAG_SECRET_KEY and MORAG_CREDENTIAL_KEYS hold one generation each: put the next one "
                    "behind it in the environment of every process first (docs/secrets.md)"
                )
            yield
            return
        descriptor = os.open(f"{files[0]}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RotationError("another 'secrets rotate' is at work here: let it finish") from None
            yield
        finally:
            os.close(descriptor)
