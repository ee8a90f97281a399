"""The client with a service that speaks TLS."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from morag_client import connect, tls_credentials
from moragmeta.v1 import users_pb2
from moragmeta.v1.users_pb2_grpc import UserServiceStub
from tests.backends.databases import open_backend
from tests.certificates import Authority
from tests.service import Service

AUTHORITY = Authority()
_ME = users_pb2.GetUserRequest(id="me")


def test_client_reads_its_files(tmp_path: Path) -> None:
    """The files of the authority and of the caller's own certificate are all that TLS needs."""
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.certificate)
    certificate, key = AUTHORITY.issue("both ends").write(tmp_path)
    settings = {
        "tls_cert_file": str(certificate),
        "tls_key_file": str(key),
        "tls_client_ca_file": str(tmp_path / "ca.crt"),
    }
    with open_backend("sqlite") as backend:
        service = Service(backend.new_url(), "sqlite", **settings)
        user = service.new_user()
        own = tls_credentials(tmp_path / "ca.crt", certificate, key)
        with connect(service.target, user.key, credentials=own) as channel:
            assert UserServiceStub(channel).GetUser(_ME).id == user.id
        without = tls_credentials(str(tmp_path / "ca.crt"))
        with connect(service.target, user.key, credentials=without) as channel:
            stub = UserServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                stub.GetUser(_ME, timeout=3)
        service.close()


def test_half_a_certificate_is_refused() -> None:
    """A certificate without its key is a mistake of the caller's, said at once."""
    with pytest.raises(ValueError, match="belong together"):
        tls_credentials(cert_file="client.crt")
