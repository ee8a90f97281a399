"""That a leak would be found: each of these plants one, in each place that is searched."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from morag_meta.auth.keys import new_key
from morag_meta.db import migrate
from morag_meta.db.url import normalize
from moragmeta.v1 import api_keys_pb2, users_pb2, workers_pb2
from tests.backends.databases import Backend
from tests.leaks import collected
from tests.leaks.collected import LEASES, SECRETS, Collected, Leaked, check
from tests.leaks.databases import check_files, check_rows
from tests.service import User

_FORMS: list[Callable[[bytes], bytes]] = [
    bytes,
    lambda secret: secret.hex().encode(),
    lambda secret: secret.hex().upper().encode(),
    base64.b64encode,
    base64.urlsafe_b64encode,
    lambda secret: base64.b64encode(b"of:" + secret),
    lambda secret: base64.b64encode(b"1" + secret + b"2"),
    lambda secret: base64.urlsafe_b64encode(b"12" + secret + b"345"),
    lambda secret: urllib.parse.quote(secret, safe="").encode(),
]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a secret that this test alone knows, so that where it is left fails nothing else."""
    known, secret = Collected(), "pl@nted/" + secrets.token_urlsafe(24)
    known.add("a planted secret", secret)
    for module in ("tests.leaks.collected", "tests.leaks.databases"):
        monkeypatch.setattr(f"{module}.SECRETS", known)
    return secret


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("length", [8, 11, 16, 40, 200])
def test_a_secret_is_found_in_every_form_and_at_every_place(
    form: Callable[[bytes], bytes], length: int
) -> None:
    """Wherever it begins, and whatever it was coded as."""
    known, secret = Collected(), ""
    while len(set(secret)) < 5:  # or it would be too plain, as one in thousands is by chance
        secret = secrets.token_urlsafe(length)[:length]
    known.add("a secret", secret)
    assert len(known) == 1
    for before in range(9):
        assert known.found_in(b"-" * before + form(secret.encode()) + b"tail")
    assert known.found_in(b"nothing here " * 100) == []


def test_a_find_is_told_without_the_secret(planted: str) -> None:
    """The report names the place, whose field it is, and how it was written; and not what."""
    with pytest.raises(Leaked) as caught:
        check("a log", f"the secret is {planted}.")
    assert "a planted secret, plain" in str(caught.value)
    assert "a log" in str(caught.value)
    assert planted[:6] not in str(caught.value)


def test_a_secret_in_a_database_is_found_when_it_goes(backend: Backend, planted: str) -> None:
    """In the bytes of SQLite's files, and in the rows of the others, while nothing is found before."""
    url = backend.new_url()
    migrate.upgrade(url)
    look = check_rows if backend.name != "sqlite" else _look_into_files
    look(url)
    engine = sa.create_engine(normalize(url), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE notes (text VARCHAR(255))"))
        connection.execute(sa.text("INSERT INTO notes VALUES (:text)"), {"text": f"note {planted}"})
    engine.dispose()
    with pytest.raises(Leaked, match=r"notes\.text|morag\.db"):
        look(url)
    with pytest.raises(Leaked):
        backend.drop(url)


def _look_into_files(url: str) -> None:
    check_files(Path(url.removeprefix("sqlite:///")).parent)


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["alone", "distributed"])
def test_a_leak_fails_the_suite(words: tuple[str, ...], tmp_path: Path) -> None:
    """In one process and in several: the run ends with 1, and names the place but not the secret."""
    secret = secrets.token_urlsafe(24)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_planted.py").write_text(
        "from tests.leaks.collected import SECRETS\n\n"
        "def test_tells():\n"
        f"    secret = {secret[::-1]!r}[::-1]\n"
        "    SECRETS.add('a planted secret', secret)\n"
        "    print('it is', secret)\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.leaks.watching",
            "-rN",
            "--show-capture=no",
            *words,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 secrets stand in Captured stdout call" in done.stdout
    assert "a planted secret, plain" in done.stdout
    assert secret not in done.stdout


def test_what_a_process_of_the_test_keeps_in_a_private_file_is_a_secret(tmp_path: Path) -> None:
    """A test whose own process makes a secret, keeps it in its file and prints it, fails."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_planted.py").write_text(
        "from morag_meta.auth.private_file import write_once\n\n"
        "def test_tells(tmp_path):\n"
        "    write_once(tmp_path / 'x.secret-key', 'k1:' + 'aB3/' * 8 + 'xyz\\n')\n"
        "    print('it is', 'aB3/' * 8 + 'xyz')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.leaks.watching", "--show-capture=no", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the file x.secret-key, plain" in done.stdout


def test_what_calls_send_and_receive_is_collected(user: User) -> None:
    """Keys, passwords and tokens of leases are known once a stub has carried them; emails are none."""
    made = user.channel.api_keys.CreateApiKey(
        api_keys_pb2.CreateApiKeyRequest(api_key=api_keys_pb2.ApiKey(name="collected"))
    )
    password, email = f"pass {secrets.token_hex(8)}", f"{secrets.token_hex(8)}@leaks.test"
    user.channel.users.RegisterUser(users_pb2.RegisterUserRequest(name="Jo", email=email, password=password))
    found = SECRETS.found_in(f"{made.secret} {password} {email}".encode())
    assert {form.what for form in found} >= {"RegisterUserRequest.password"}
    assert any(form.data == made.secret.encode() for form in found)
    assert not any(email.encode() in form.data for form in found)
    token = secrets.token_hex(16)
    collected.LEASES.add("Lease.token", token)
    assert LEASES.found_in(token.encode())
    assert workers_pb2.Lease.DESCRIPTOR.fields_by_name["token"] is not None
    assert SECRETS.found_in(new_key().encode()) == []
