"""The example programs with a service that speaks TLS."""

from __future__ import annotations

from pathlib import Path

from tests.backends.databases import open_backend
from tests.certificates import Authority
from tests.examples.conftest import Examples
from tests.service import Service


def test_main_job_goes_by_tls(folder: Path, tmp_path: Path) -> None:
    """Registering, working and watching need no more than the authority's file in the environment."""
    authority = Authority()
    certificate, key = authority.issue("server").write(tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    with open_backend("sqlite") as backend:
        service = Service(backend.new_url(), "sqlite", tls_cert_file=str(certificate), tls_key_file=str(key))
        examples = Examples(service.target, service.new_user().key)
        examples.environment["MORAG_CA_FILE"] = str(tmp_path / "ca.crt")
        try:
            registered = examples.run("register_folder", folder)
            assert {line.split()[0] for line in registered} == {"new"}
            examples.run("worker", "--until-idle")
            assert "INGESTED" in "\n".join(examples.run("watch"))
        finally:
            examples.close()
            service.close()


def test_a_clients_certificate_needs_an_authority(service: Service, folder: Path, tmp_path: Path) -> None:
    """A client's certificate without MORAG_CA_FILE is refused, and no API key goes in the clear."""
    certificate, key = Authority().issue("client").write(tmp_path)
    examples = Examples(service.target, service.new_user().key)
    examples.environment |= {"MORAG_CLIENT_CERT_FILE": str(certificate), "MORAG_CLIENT_KEY_FILE": str(key)}
    try:
        (line,) = examples.run("register_folder", folder, expect=1)
        assert line == "a client's certificate is for TLS: set MORAG_CA_FILE too"
        assert examples.databases() == []
    finally:
        examples.close()
