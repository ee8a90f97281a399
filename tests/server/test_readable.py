"""A start with secrets that cannot read what the database keeps: refused where all is lost, or warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from morag_meta.api_keys.actions import create_key
from morag_meta.auth.credentials import CredentialRing
from morag_meta.auth.keys import KeyHasher
from morag_meta.auth.secret import RootSecrets
from morag_meta.auth.secret_files import RingFile, RootFile
from morag_meta.config.error import ConfigurationError
from morag_meta.config.settings import Settings
from morag_meta.exits import ExitCode
from morag_meta.ids import new_id
from morag_meta.server.preparation import opened, prepare
from morag_meta.servers.secrets import seal
from tests.backends.databases import Backend
from tests.server.installation import Installation
from tests.server.processes import run


@pytest.fixture
def installation(backend: Backend, database_url: str, tmp_path: Path) -> Installation:
    """Give a fresh installation."""
    return Installation(backend, database_url, tmp_path)


def _settings(installation: Installation, roots: list[RootFile], rings: list[RingFile]) -> Settings:
    """Give settings that hold the secrets of the environment, the first of each makes."""
    secret = ",".join(each.signing for each in roots)
    keys = ",".join(f"{each.active}:{each.keys[each.active]}" for each in rings)
    url = installation.settings.database_url
    return Settings.model_validate({"database_url": url, "secret_key": secret, "credential_keys": keys})


def _warnings(settings: Settings, *, accept_lost: bool = False) -> list[str]:
    with capture_logs() as logs:
        prepare(settings, accept_lost=accept_lost)
    return [line["problem"] for line in logs if line["log_level"] == "warning" and "problem" in line]


def test_another_root_secret_is_refused_and_named(installation: Installation) -> None:
    """Where no API key can be read, a start says which generation made them and which one is given."""
    other = RootFile.fresh()
    settings = _settings(installation, [other], [installation.was_ring])
    with pytest.raises(ConfigurationError) as caught:
        prepare(settings)
    made, given = (
        KeyHasher(each.secrets[0].subkey("api-key")).generations[0] for each in (installation.was_root, other)
    )
    assert f"no API key in the database can be read, made by {made}, and" in str(caught.value)
    assert f"MORAG_SECRET_KEY gives {given}" in str(caught.value)
    assert "sealed" not in str(caught.value)
    assert other.signing not in str(caught.value)


def test_other_credential_keys_are_refused(installation: Installation) -> None:
    """The same holds of sealed credentials, whatever the API keys are."""
    with pytest.raises(ConfigurationError, match="no sealed credential in the database can be read"):
        prepare(_settings(installation, [installation.was_root], [RingFile.fresh()]))


def test_the_secrets_that_made_them_are_accepted_in_silence_at_any_place(installation: Installation) -> None:
    """Of two generations it is enough that the second one made all there is."""
    roots, rings = [RootFile.fresh(), installation.was_root], [RingFile.fresh(), installation.was_ring]
    assert _warnings(_settings(installation, roots, rings)) == []
    assert _warnings(_settings(installation, roots[1:], rings[1:])) == []


def test_what_is_lost_for_good_can_be_accepted(installation: Installation) -> None:
    """With the option a start is a warning for each secret instead."""
    settings = _settings(installation, [RootFile.fresh()], [RingFile.fresh()])
    warned = _warnings(settings, accept_lost=True)
    assert [problem.split(" in the")[0] for problem in warned] == ["no API key", "no sealed credential"]


def test_rows_that_are_left_of_a_lost_secret_are_warned_of(installation: Installation) -> None:
    """As long as one can be read the service starts, and the line says how to count the others."""
    next_root, next_ring = RootFile.fresh(), RingFile.fresh()
    settings = _settings(installation, [next_root], [next_ring])
    _add_key_and_server(installation, next_root, next_ring)
    warned = _warnings(settings)
    assert [problem.split(" cannot")[0] for problem in warned] == ["some API keys", "some sealed credentials"]
    assert all("secrets status" in problem for problem in warned)


def test_one_that_can_be_read_is_found_among_any_number(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is not among those that are looked at first keeps a service from being refused."""
    next_root, next_ring = RootFile.fresh(), RingFile.fresh()
    _add_key_and_server(installation, next_root, next_ring)
    _add_key_and_server(installation, installation.was_root, installation.was_ring, name="last")
    monkeypatch.setattr("morag_meta.server.readable.LOOKED_AT", 1)
    warned = _warnings(_settings(installation, [next_root], [next_ring]))
    assert [problem.split(" cannot")[0] for problem in warned] == ["some API keys", "some sealed credentials"]


def test_a_database_without_rows_is_served_by_any_secrets(backend: Backend, database_url: str) -> None:
    """Nothing is there to be read, so nothing is refused or warned of."""
    del backend
    secrets = {"secret_key": RootFile.fresh().signing, "credential_keys": _typed(RingFile.fresh())}
    settings = Settings.model_validate({"database_url": database_url, **secrets})
    assert prepare(settings) is not None
    assert _warnings(settings) == []


def test_the_command_ends_with_the_line(installation: Installation, tmp_path: Path) -> None:
    """`serve` with a wrong secret is over at once, as for any setting that cannot be."""
    given = {
        "DATABASE_URL": installation.settings.database_url,
        "SECRET_KEY": RootFile.fresh().signing,
        "CREDENTIAL_KEYS": _typed(installation.was_ring),
    }
    done = run("serve", "--address", "127.0.0.1:0", folder=tmp_path, **given)
    assert done.returncode == ExitCode.CONFIGURATION
    assert "no API key in the database can be read" in done.stderr
    assert "--accept-lost-secrets" in done.stderr


def _typed(file: RingFile) -> str:
    return f"{file.active}:{file.keys[file.active]}"


def _add_key_and_server(
    installation: Installation, root: RootFile, ring: RingFile, *, name: str = "o"
) -> None:
    """Add what other secrets made beside what is there."""
    sealer: CredentialRing = ring.ring
    hasher = KeyHasher(RootSecrets(lambda: root.secrets).keys("api-key"))
    server_id = new_id()
    sealed = seal(sealer, server_id, {"password": "p"})
    with opened(installation.settings) as database, database.unit_of_work() as uow:
        create_key(uow, hasher, owner_id=installation.owner, name=name)
        uow.servers.add(server_id, installation.owner, name=name, kind="QDRANT", host="h", port=1, **sealed)
        uow.commit()
