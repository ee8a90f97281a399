"""TLS as clients meet it: real processes, real handshakes, and certificates that change meanwhile."""

from __future__ import annotations

import os
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from morag_meta.exits import ExitCode
from moragmeta.v1 import jobs_pb2, users_pb2
from tests.backends.daemon import free_port
from tests.certificates import Authority, Certificate, replace, shown
from tests.server.processes import SERVING, Served, run, served
from tests.service import Channel

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)

AUTHORITY, STRANGER = Authority(), Authority("somebody else's authority")
TRUSTING = grpc.ssl_channel_credentials(AUTHORITY.certificate)


def _with(client: Certificate | None) -> grpc.ChannelCredentials:
    if client is None:
        return TRUSTING
    return grpc.ssl_channel_credentials(AUTHORITY.certificate, client.key, client.certificate)


def _variables(folder: Path, name: str = "first") -> dict[str, str]:
    certificate, key = AUTHORITY.issue(name).write(folder)
    return {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key), "TLS_RELOAD_INTERVAL": "0.2"}


def _ask(service: Served, credentials: grpc.ChannelCredentials | None) -> int | grpc.StatusCode:
    """Ask for health; give the answer, or the code of the refusal."""
    with service.channel(credentials) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status)
        except grpc.RpcError as error:
            refusal: Any = error
            code: grpc.StatusCode = refusal.code()
            return code


def _until(done: Callable[[], bool], service: Served, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, service.log
        time.sleep(0.05)


def _told(service: Served, event: str) -> list[dict[str, Any]]:
    return [each for each in service.events if each["event"] == event]


def first_key(service: Served) -> str:
    """Give the key that a first start prints."""
    stdout = service.running.stdout
    assert stdout is not None
    return stdout.readline().removeprefix("admin API key: ").strip()


@pytest.fixture
def secure(tmp_path: Path, database_url: str) -> Iterator[Served]:
    """Serve by TLS."""
    with served(tmp_path, database_url, credentials=TRUSTING, **_variables(tmp_path)) as service:
        yield service


def test_calls_go_by_tls_and_not_without(secure: Served) -> None:
    """Who trusts the authority is served; who trusts another, or speaks plaintext, gets no answer."""
    channel = Channel(secure.target, (("x-api-key", first_key(secure)),), TRUSTING)
    assert channel.users.GetUser(users_pb2.GetUserRequest(id="me")).role == 3
    channel.close()
    assert _ask(secure, TRUSTING) == SERVING
    assert _ask(secure, grpc.ssl_channel_credentials(STRANGER.certificate)) is grpc.StatusCode.UNAVAILABLE
    assert _ask(secure, None) is grpc.StatusCode.UNAVAILABLE
    assert secure.end() == ExitCode.OK


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_of_tls_are_refused(secure: Served) -> None:
    """TLS 1.2 and 1.3 are spoken, and 1.1 is not."""
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        assert shown(secure.port, AUTHORITY, maximum_version=version, minimum_version=version)[1] == name
    old, oldest = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1
    with pytest.raises(OSError, match=r"EOF|ALERT"):
        shown(secure.port, AUTHORITY, minimum_version=oldest, maximum_version=old)


@pytest.mark.parametrize("workers", [1, 2])
def test_new_certificate_is_used_while_streams_go_on(tmp_path: Path, database_url: str, workers: int) -> None:
    """Every process shows the new certificate to who comes, and a stream open since before hears on."""
    words = ("--workers", str(workers))
    with served(tmp_path, database_url, *words, credentials=TRUSTING, **_variables(tmp_path)) as service:
        _until(lambda: len(_told(service, "serving")) == workers, service)
        channel = Channel(service.target, (("x-api-key", first_key(service)),), TRUSTING)
        job = channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REPORT")))
        frames = channel.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=job.id))
        assert next(frames).event.sequence == 1
        assert shown(service.port, AUTHORITY)[0] == "first"
        AUTHORITY.issue("second").write(tmp_path)
        _until(lambda: len(_told(service, "new certificate read")) == workers, service)
        assert {shown(service.port, AUTHORITY)[0] for _ in range(12)} == {"second"}
        channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id, reason="seen"))
        assert [frame.event.sequence for frame in frames if frame.WhichOneof("frame") == "event"] == [2]
        channel.close()
        assert service.end() == ExitCode.OK


def test_bad_new_files_leave_the_old_in_use(secure: Served, tmp_path: Path) -> None:
    """A key that does not fit is told as an error, without its text, and callers notice nothing."""
    wrong = STRANGER.issue("wrong").key
    replace(tmp_path / "server.key", wrong)
    _until(lambda: bool(_told(secure, "new TLS files are not used, those before stay in use")), secure)
    assert shown(secure.port, AUTHORITY)[0] == "first"
    assert _ask(secure, TRUSTING) == SERVING
    assert not any(line in secure.log for line in wrong.decode().splitlines())
    AUTHORITY.issue("third").write(tmp_path)
    _until(lambda: shown(secure.port, AUTHORITY)[0] == "third", secure)


def test_worker_that_starts_with_bad_files_tries_again(tmp_path: Path, database_url: str) -> None:
    """A worker that dies while the files are bad comes back when they are good; the other serves on."""
    variables = _variables(tmp_path)
    with served(tmp_path, database_url, "--workers", "2", credentials=TRUSTING, **variables) as service:
        _until(lambda: len(_told(service, "serving")) == 2, service)
        (tmp_path / "server.crt").unlink()
        os.kill(service.workers()[0], signal.SIGKILL)
        _until(lambda: bool(_told(service, "cannot serve yet")), service)
        assert shown(service.port, AUTHORITY)[0] == "first"
        AUTHORITY.issue("second").write(tmp_path)
        _until(lambda: len(_told(service, "serving")) == 3, service)
        assert service.end() == ExitCode.OK


def test_clients_prove_themselves_where_an_authority_is_given(tmp_path: Path, database_url: str) -> None:
    """With an authority of clients, only a valid certificate of that authority connects."""
    (tmp_path / "clients.crt").write_bytes(AUTHORITY.certificate)
    variables = _variables(tmp_path) | {"TLS_CLIENT_CA_FILE": str(tmp_path / "clients.crt")}
    good = AUTHORITY.issue("a client")
    with served(tmp_path, database_url, credentials=_with(good), **variables) as service:
        assert _ask(service, _with(good)) == SERVING
        for client in (None, STRANGER.issue("a stranger"), AUTHORITY.issue("late", expired=True)):
            assert _ask(service, _with(client)) is grpc.StatusCode.UNAVAILABLE
        replace(tmp_path / "clients.crt", AUTHORITY.certificate + STRANGER.certificate)
        _until(lambda: bool(_told(service, "new certificate read")), service)
        assert _ask(service, _with(STRANGER.issue("a stranger"))) == SERVING
        assert _ask(service, _with(good)) == SERVING
        assert _ask(service, _with(None)) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"TLS_CERT_FILE": "server.crt"}, "MORAG_TLS_CERT_FILE is set and MORAG_TLS_KEY_FILE is not"),
        ({"TLS_KEY_FILE": "server.key"}, "MORAG_TLS_KEY_FILE is set and MORAG_TLS_CERT_FILE is not"),
        ({"TLS_CLIENT_CA_FILE": "c.crt"}, "MORAG_TLS_CLIENT_CA_FILE is set and MORAG_TLS_CERT_FILE is not"),
        ({"TLS_CERT_FILE": "no.crt", "TLS_KEY_FILE": "server.key"}, "no.crt cannot be read"),
        ({"TLS_CERT_FILE": "server.crt", "TLS_KEY_FILE": "other.key"}, "is not the key of the certificate"),
        ({"TLS_CERT_FILE": "server.crt", "TLS_KEY_FILE": "open.key"}, "open.key is open to others"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_half_of_tls_refuses_to_start(
    tmp_path: Path, database_url: str, workers: str, variables: dict[str, str], told: str
) -> None:
    """What is missing or wrong is one clear line and exit code 5, and no database is made."""
    certificate = AUTHORITY.issue("first")
    certificate.write(tmp_path)
    replace(tmp_path / "other.key", STRANGER.issue("other").key)
    replace(tmp_path / "open.key", certificate.key, 0o644)
    words = ("serve", "--address", "127.0.0.1:0", "--workers", workers)
    result = run(*words, folder=tmp_path, **variables)
    assert result.returncode == ExitCode.CONFIGURATION
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert "PRIVATE" not in result.stderr
    assert not list(tmp_path.glob("morag.db*"))


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "*"])  # noqa: S104 - what is to be refused
def test_plaintext_beyond_this_machine_refuses_to_start(tmp_path: Path, database_url: str, host: str) -> None:
    """Without TLS an address that others reach is refused with the three ways out."""
    result = run("serve", "--address", f"{host}:0", folder=tmp_path)
    assert result.returncode == ExitCode.CONFIGURATION
    assert result.stderr.count("\n") == 1
    for way in ("MORAG_TLS_CERT_FILE", "127.0.0.1", "MORAG_ALLOW_PLAINTEXT=true"):
        assert way in result.stderr
    assert not list(tmp_path.glob("morag.db*"))


@pytest.mark.parametrize("variables", [{"ALLOW_PLAINTEXT": "true"}, {"TLS": "yes"}])
def test_beyond_this_machine_when_told_or_by_tls(
    tmp_path: Path, database_url: str, variables: dict[str, str]
) -> None:
    """Every interface is listened on by TLS, and without it where the settings say so."""
    secure = "TLS" in variables
    given = _variables(tmp_path) if secure else variables
    port = free_port()
    words = ("--address", f"0.0.0.0:{port}")  # the last one counts
    credentials = TRUSTING if secure else None
    with served(tmp_path, database_url, *words, port=port, credentials=credentials, **given) as service:
        assert service.end() == ExitCode.OK
