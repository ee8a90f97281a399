"""Changing the secrets of a database that nobody serves: every step, killed at each, and twice at once."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from morag_meta.audit.store import Filter
from morag_meta.auth import private_file
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.secret import RootSecrets
from morag_meta.auth.secret_files import Phase
from morag_meta.auth.tokens import ACCESS_LIFE
from morag_meta.auth.tries import TryKey
from morag_meta.config.settings import Settings
from morag_meta.db.schema import metadata
from morag_meta.exits import ExitCode
from morag_meta.server.preparation import opened
from morag_meta.server.rotation import Rotation, RotationError
from tests.backends.databases import Backend
from tests.server.installation import EMAIL, Installation
from tests.server.processes import run

PAUSE = 0.01

# What kills itself after the n-th thing that it keeps: a file replaced, or a transaction committed.
_KILLED = """
import os, signal, sys
from morag_meta.audit.store import Filter
from morag_meta.auth import private_file
from morag_meta.config.settings import Settings
from morag_meta.db.unit import Unit
from morag_meta.server.rotation import Rotation

place, settings = int(sys.argv[1]), sys.argv[2]
count = 0

def dying(work):
    def run(*given, **named):
        global count
        count += 1
        result = work(*given, **named)
        if count == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return run

private_file.replace = dying(private_file.replace)
Unit.commit = dying(Unit.commit)
Rotation(Settings.model_validate_json(settings), print, pause=0.01).run(cut_off=True)
"""


@pytest.fixture
def installation(backend: Backend, database_url: str, tmp_path: Path) -> Installation:
    """Give a fresh installation."""
    return Installation(backend, database_url, tmp_path)


def _rotate(settings: Settings, *, cut_off: bool = False) -> list[str]:
    lines: list[str] = []
    Rotation(settings, lines.append, pause=PAUSE).run(cut_off=cut_off)
    return lines


def test_everything_is_renewed_and_both_are_accepted_until_the_end(installation: Installation) -> None:
    """A first run renews all rows and stops short of what clients hold; the last one removes what was."""
    rotation = Rotation(installation.settings, lambda _: None, pause=PAUSE)
    standing = rotation.run()
    assert (standing.root, standing.ring) == (Phase.PREVIOUS, Phase.PREVIOUS)
    assert (standing.held.rows, standing.held.sessions) == (0, 1)
    assert standing.end is not None
    assert installation.unknown() == []
    assert installation.known_to_before() == []
    assert len(installation.root_file().secrets) == 2
    finished = rotation.run(cut_off=True)
    assert (finished.is_settled, finished.held.sessions, finished.end) == (True, 0, None)
    assert installation.is_settled()
    assert installation.unknown() == []


def test_it_finishes_by_itself_once_nothing_would_be_cut_off(installation: Installation) -> None:
    """Without a session of the one before and a quarter of an hour later, running it again ends it."""
    _rotate(installation.settings)
    with opened(installation.settings) as database, database.unit_of_work() as uow:
        uow.sessions.delete_all(installation.owner)
        uow.commit()
    _rotate(installation.settings)
    assert installation.root_file().phase is Phase.PREVIOUS  # access tokens of before may still be out
    file = installation.root_file()
    early = dt.datetime.now(dt.UTC) - ACCESS_LIFE - dt.timedelta(seconds=1)
    private_file.replace(
        installation.root, file.text.replace(file.since.isoformat() if file.since else "", early.isoformat())
    )
    _rotate(installation.settings)
    assert installation.is_settled()
    assert installation.unknown() == []


def test_no_text_of_the_generation_before_is_left(installation: Installation) -> None:
    """After the end no column of any table names a key of before, of hashes or of credentials."""
    before = RootSecrets(lambda: installation.was_root.secrets)
    purposes = ("api-key", "password-reset", "request-fingerprint", "tries")
    names = [f"{KeyHasher(before.keys(purpose)).generations[0]}." for purpose in purposes]
    names.append(f"v1.{installation.was_ring.active}.")
    assert all(name in _dump(installation.settings) for name in names)
    _rotate(installation.settings, cut_off=True)
    dump = _dump(installation.settings)
    assert [name for name in names if name in dump] == []


def _dump(settings: Settings) -> str:
    with opened(settings) as database, database.engine.connect() as connection:
        rows = [
            str(tuple(row)) for table in metadata.sorted_tables for row in connection.execute(table.select())
        ]
    return "\n".join(rows)


def test_killed_at_any_step_it_is_finished_by_running_it_again(installation: Installation) -> None:
    """SIGKILL at each file and each transaction loses nothing, and the next run goes to the end."""
    place, outcome = 0, -signal.SIGKILL
    while outcome == -signal.SIGKILL:
        place += 1
        before = installation.root_file(), installation.ring_file()
        outcome = _killed(installation.settings, place)
        assert installation.is_read()
        if outcome == -signal.SIGKILL:
            _rotate(installation.settings, cut_off=True)
        after = installation.root_file(), installation.ring_file()
        assert installation.is_settled()
        assert (before[0].signing != after[0].signing, before[1].active != after[1].active) == (True, True)
        assert installation.unknown() == []
    assert outcome == 0
    assert place > 8


def _killed(settings: Settings, place: int) -> int:
    given = json.dumps(settings.model_dump(mode="json", exclude_none=True))
    words = [sys.executable, "-c", _KILLED, str(place), given]
    done = subprocess.run(words, capture_output=True, check=False, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


def test_of_two_at_once_one_is_refused(installation: Installation) -> None:
    """Whoever comes while another is at work changes nothing and is told so; the lock ends with that."""
    descriptor = os.open(f"{installation.root}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(RotationError, match="another"):
        _rotate(installation.settings)
    assert (installation.root_file(), installation.ring_file()) == (
        installation.was_root,
        installation.was_ring,
    )
    os.close(descriptor)
    _rotate(installation.settings, cut_off=True)
    assert installation.is_settled()


def test_two_processes_at_once_end_well(installation: Installation) -> None:
    """Of processes at the same moment, those that are not refused leave one generation and lose nothing."""
    given = json.dumps(installation.settings.model_dump(mode="json", exclude_none=True))
    words = [sys.executable, "-c", _KILLED, "0", given]
    commands = [subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(3)]
    errors = [command.communicate(timeout=90)[1].decode() for command in commands]
    codes = [command.returncode for command in commands]
    assert 0 in codes
    assert all(code == 0 or "another" in error for code, error in zip(codes, errors, strict=True))
    assert installation.is_settled()
    assert installation.unknown() == []


def test_tallies_of_both_generations_are_added(installation: Installation) -> None:
    """What two processes held against an account by different secrets is held against it as one."""
    hasher = KeyHasher(RootSecrets(lambda: installation.was_root.secrets).keys("tries"))
    private_file.replace(installation.root, installation.was_root.announced().text)
    both = KeyHasher(RootSecrets(lambda: installation.root_file().secrets).keys("tries"))
    old, new = both.digests(EMAIL)
    assert old == hasher.digest(EMAIL)
    with opened(installation.settings) as database, database.unit_of_work() as uow:
        now = uow.tries.now()
        uow.tries.add(TryKey("LOGIN", new, ""), now + dt.timedelta(hours=2))
        uow.commit()
    _rotate(installation.settings)
    with opened(installation.settings) as database, database.unit_of_work() as uow:
        row = uow.tries.find(TryKey("LOGIN", new, ""))
        assert uow.tries.find(TryKey("LOGIN", old, "")) is None
    assert row is not None
    assert dt.timedelta(hours=2, minutes=50) < row["clear_time"] - now <= dt.timedelta(hours=3)


def test_secrets_in_the_environment_are_renewed_by_and_left_alone(
    installation: Installation, tmp_path: Path
) -> None:
    """With the next one first and the one before behind it, the rows become the next one's."""
    (new_root, new_ring) = (installation.root_file().fresh(), installation.ring_file().fresh())
    was_ring = installation.was_ring
    keys = ",".join(f"{each.active}:{each.keys[each.active]}" for each in (new_ring, was_ring))
    both = {
        "DATABASE_URL": installation.settings.database_url,
        "SECRET_KEY": f"{new_root.signing},{installation.was_root.signing}",
        "CREDENTIAL_KEYS": keys,
    }
    done = run("secrets", "rotate", "--output", "json", folder=tmp_path, **both)
    facts = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (facts["secret_key"], facts["old_api_keys"], facts["old_servers"]) == ("environment", 0, 0)
    assert (facts["old_sessions"], facts["finished"]) == (1, False)
    assert dt.datetime.fromisoformat(facts["finish_from"]) > dt.datetime.now(dt.UTC) + ACCESS_LIFE / 2
    assert installation.known_to_before() == []
    private_file.replace(installation.root, new_root.text)
    private_file.replace(installation.ring, new_ring.text)
    assert installation.unknown() == []
    single = both | {"SECRET_KEY": new_root.signing, "CREDENTIAL_KEYS": keys.partition(",")[0]}
    refused = run("secrets", "rotate", folder=tmp_path, **single)
    assert refused.returncode == ExitCode.REFUSED
    assert "docs/secrets.md" in refused.stderr


def test_no_state_of_the_environment_reads_as_leave_to_remove_the_wrong_one(
    installation: Installation, tmp_path: Path
) -> None:
    """In step 1 and after step 3 alike, what is said leaves open which of both is the next one."""
    new_root, new_ring = installation.root_file().fresh(), installation.ring_file().fresh()
    roots = [installation.was_root, new_root]
    rings = [installation.was_ring, new_ring]
    old, new = (KeyHasher(each.secrets[0].subkey("api-key")).generations[0] for each in roots)

    def environment(order: int) -> dict[str, str]:
        keys = [f"{each.active}:{each.keys[each.active]}" for each in rings[::order]]
        secrets = ",".join(each.signing for each in roots[::order])
        url = installation.settings.database_url
        return {"DATABASE_URL": url, "SECRET_KEY": secrets, "CREDENTIAL_KEYS": ",".join(keys)}

    def told(*words: str, order: int) -> str:
        done = run("secrets", *words, folder=tmp_path, **environment(order))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    first = told("rotate", order=1)
    assert "renewed" not in first
    for said in (first, told("status", order=1)):
        assert (
            f"every row is of the first generation ({old}): where {new} is the next one, put it first" in said
        )
        assert f"every row is of the first generation ({installation.was_ring.active}): where" in said
        assert "done" not in said
    assert f"6 rows need {old}, which must not be removed" in told("status", order=-1)
    renewed = told("rotate", order=-1)
    assert (
        f"where {old} is the next one, put it first; where it is the one before, it can be removed from 20"
        in (renewed)
    )
    assert "access tokens of the generation before end by" in renewed
    facts = json.loads(told("status", "--output", "json", order=-1))
    assert facts["finished"] is False
    assert [(each["id"], each["makes"], each["rows"]) for each in facts["generations"]] == [
        (new, True, 6),
        (old, False, 0),
        (new_ring.active, True, 3),
        (installation.was_ring.active, False, 0),
    ]
    assert any("a quarter of an hour after the last process" in line for line in facts["next"])


def test_the_audit_has_each_part_of_a_change(installation: Installation) -> None:
    """An event stands for the beginning, for renewed rows, for ended sessions, and for the end."""
    begun = ["secrets.begin_rotation", "secrets.renew_rows"]
    _rotate(installation.settings)
    assert _audited(installation.settings) == begun
    _rotate(installation.settings)
    assert _audited(installation.settings) == begun
    _rotate(installation.settings, cut_off=True)
    assert _audited(installation.settings) == [*begun, "secrets.end_sessions", "secrets.rotate"]


def _audited(settings: Settings) -> list[str]:
    with opened(settings) as database, database.unit_of_work() as uow:
        rows = uow.audit.page(Filter(), None, 100, descending=False)
    return [row["event"] for row in rows if row["event"].startswith("secrets.")]


def test_the_command_says_what_it_does_and_shows_no_secret(
    installation: Installation, tmp_path: Path
) -> None:
    """Each step is a line, the last one says when to come again, and status shows the same."""
    if installation.settings.secret_key_file is None:
        files = {}
    else:
        files = {
            "SECRET_KEY_FILE": str(installation.root),
            "CREDENTIAL_KEYS_FILE": str(installation.ring),
        }
    given = {"DATABASE_URL": installation.settings.database_url} | files
    first = run("secrets", "rotate", "--pause", "1.2", folder=tmp_path, **given)
    assert first.returncode == 0, first.stderr
    assert "renewed 3 api_keys, 1 password_resets, 1 request_records, 1 tries, 3 servers" in first.stdout
    assert "1 session goes on by the generation before until" in first.stdout
    assert "run 'morag-meta secrets rotate' from" in first.stdout
    status = json.loads(run("secrets", "status", "-o", "json", folder=tmp_path, **given).stdout)
    assert (status["secret_key"], status["old_sessions"]) == ("previous", 1)
    last = run("secrets", "rotate", "--cut-off", "--pause", "1.2", folder=tmp_path, **given)
    assert "done: there is one generation" in last.stdout
    secrets = [installation.was_root.signing, installation.root_file().signing]
    secrets += [*installation.was_ring.keys.values(), *installation.ring_file().keys.values()]
    said = first.stdout + first.stderr + last.stdout + last.stderr
    assert [secret for secret in secrets if secret in said] == []
