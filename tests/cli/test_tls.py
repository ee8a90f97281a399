"""Calling a service that speaks TLS and asks for certificates, from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from morag_meta.exits import ExitCode
from tests.backends.databases import open_backend
from tests.certificates import Authority
from tests.cli.command import Command
from tests.service import Service

AUTHORITY = Authority()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the authority, and the certificates of a server and a client."""
    made = tmp_path_factory.mktemp("tls")
    (made / "ca.crt").write_bytes(AUTHORITY.certificate)
    AUTHORITY.issue("server").write(made)
    client = AUTHORITY.issue("client")
    (made / "client.crt").write_bytes(client.certificate)
    (made / "client.key").write_bytes(client.key)
    return made


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[Service]:
    """Serve by TLS to clients with a certificate."""
    with open_backend("sqlite") as backend:
        made = Service(
            backend.new_url(),
            "sqlite",
            tls_cert_file=str(folder / "server.crt"),
            tls_key_file=str(folder / "server.key"),
            tls_client_ca_file=str(folder / "ca.crt"),
        )
        yield made
        made.close()


def _options(folder: Path, *names: str) -> list[str]:
    files = {"--ca-file": "ca.crt", "--client-cert": "client.crt", "--client-key": "client.key"}
    return [word for name in names for word in (name, str(folder / files[name]))]


def test_options_reach_a_server_with_tls(cli: Command, secure: Service, folder: Path) -> None:
    """The authority and the caller's own certificate, given before the command, open the way."""
    words = _options(folder, "--ca-file", "--client-cert", "--client-key")
    asked = cli(*words, "health", "--target", secure.target)
    assert (asked.code, asked.out) == (ExitCode.OK, "SERVING\n")


def test_variables_reach_a_server_with_tls(
    cli: Command, secure: Service, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment says the same, for plain calls and for streams, and none of it is warned of."""
    monkeypatch.setenv("MORAG_CA_FILE", str(folder / "ca.crt"))
    monkeypatch.setenv("MORAG_CLIENT_CERT_FILE", str(folder / "client.crt"))
    monkeypatch.setenv("MORAG_CLIENT_KEY_FILE", str(folder / "client.key"))
    monkeypatch.setenv("MORAG_TARGET", secure.target)
    monkeypatch.setenv("MORAG_API_KEY", secure.new_user().key)
    listed = cli("jobs", "list", "--output", "json")
    assert (listed.code, listed.err) == (ExitCode.OK, "")
    watched = cli("jobs", "watch", "01890a5d-ac96-774b-bcce-b302099a8057")
    assert watched.code is ExitCode.NOT_FOUND, watched.err


@pytest.mark.parametrize("names", [(), ("--ca-file",)])
def test_less_does_not_reach_it(cli: Command, secure: Service, folder: Path, names: tuple[str, ...]) -> None:
    """Plaintext, and TLS without the certificate that is asked for, are 2 as any server without an answer."""
    asked = cli(*_options(folder, *names), "health", "--target", secure.target, "--timeout", "3")
    assert asked.code is ExitCode.UNREACHABLE
    assert asked.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ca-file", "no.crt"], "no.crt cannot be read"),
        (["--ca-file", "odd.crt"], "odd.crt is not a PEM file"),
        (["--client-cert", "odd.crt"], "--client-cert and --client-key belong together"),
        (["--client-cert", "odd.crt", "--client-key", "odd.crt"], "give --ca-file too"),
    ],
)
def test_wrong_files_are_told(cli: Command, tmp_path: Path, words: list[str], told: str) -> None:
    """What cannot be used is one line and the exit code of a configuration that is not accepted."""
    (tmp_path / "odd.crt").write_text("odd")
    asked = cli(*words, "health", "--target", "127.0.0.1:1")
    assert asked.code is ExitCode.CONFIGURATION
    assert told in asked.err
    assert asked.err.count("\n") == 1
