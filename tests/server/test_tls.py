"""The files of TLS: what is refused, what is taken up while serving, and what is never told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from structlog.testing import capture_logs

from morag_meta.server.tls import Certified, Tls, TlsError, TlsFiles
from tests.certificates import Authority, pem_of, replace

AUTHORITY = Authority()


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    """Give a certificate, its key and an authority of clients, in order."""
    certificate, key = AUTHORITY.issue("first").write(tmp_path)
    client_ca = tmp_path / "clients.crt"
    client_ca.write_bytes(AUTHORITY.certificate)
    return TlsFiles(certificate, key, client_ca)


def test_files_in_order_are_read(files: TlsFiles) -> None:
    """Certificate, key and authority are those of the files, and the key does not show."""
    certified = Certified.read(files)
    assert certified.certificate == files.certificate.read_bytes()
    assert certified.key == files.key.read_bytes()
    assert certified.client_ca == AUTHORITY.certificate
    assert "PRIVATE" not in repr(certified)


@pytest.mark.parametrize("algorithm", ["rsa", "ec"])
def test_key_of_either_form_is_read(files: TlsFiles, algorithm: str) -> None:
    """A key in the traditional form of its algorithm, here of another certificate, is read and compared."""
    other: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
        rsa.generate_private_key(65537, 2048)
        if algorithm == "rsa"
        else ec.generate_private_key(ec.SECP256R1())
    )
    replace(files.key, other.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    with pytest.raises(TlsError, match="is not the key of the certificate"):
        Certified.read(files)


def _encrypted() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda files: files.certificate.unlink(), "TLS_CERT_FILE .* cannot be read: No such file"),
        (lambda files: files.key.unlink(), "TLS_KEY_FILE .* cannot be read: No such file"),
        (lambda files: files.client_ca.unlink(), "TLS_CLIENT_CA_FILE .* cannot be read: No such file"),
        (lambda files: (files.key.unlink(), files.key.mkdir()), "cannot be read: Is a directory"),
        (lambda files: files.certificate.write_text("rubbish"), "TLS_CERT_FILE .* holds no PEM certificate"),
        (lambda files: files.key.write_text("rubbish"), "TLS_KEY_FILE .* holds no PEM private key"),
        (lambda files: files.client_ca.write_text(""), "TLS_CLIENT_CA_FILE .* holds no PEM certificate"),
        (lambda files: files.key.write_bytes(_encrypted()), "TLS_KEY_FILE .* is encrypted"),
        (lambda files: replace(files.key, AUTHORITY.issue("other").key), "TLS_KEY_FILE .* is not the key"),
        (lambda files: files.key.chmod(0o604), "TLS_KEY_FILE .* is open to others: chmod 600"),
        (lambda files: files.key.chmod(0o620), "TLS_KEY_FILE .* is open to others: chmod 600"),
        (
            lambda files: AUTHORITY.issue("old", expired=True).write(files.key.parent),
            "TLS_CERT_FILE .* has expired",
        ),
    ],
)
def test_files_that_cannot_be_used_are_told(
    files: TlsFiles, spoil: Callable[[TlsFiles], object], told: str
) -> None:
    """Each mistake is one line with the variable, the file and the cause, and nothing of the key."""
    key = files.key.read_text()
    spoil(files)
    with pytest.raises(TlsError, match=told) as caught:
        Certified.read(files)
    assert "MORAG_TLS" in str(caught.value)
    assert str(caught.value).count("\n") == 0
    assert not any(line in str(caught.value) for line in key.splitlines())


def test_key_that_a_group_may_read_is_fine(files: TlsFiles) -> None:
    """A key of mode 0640 is used: a group may be there for just that."""
    files.key.chmod(0o640)
    Certified.read(files)


def test_new_files_are_told_once(files: TlsFiles) -> None:
    """New files are read at the next look, and not again while they stay the same."""
    tls = Tls(files, 60)
    AUTHORITY.issue("second").write(files.key.parent)
    with capture_logs() as events:
        tls.look()
        tls.look()
    (event,) = events
    assert event["event"] == "new certificate read"
    assert event["serial_number"] == Certified.read(files).serial_number


def test_same_certificate_in_new_files_is_no_news(files: TlsFiles) -> None:
    """Files that are written anew with what they held are not told."""
    tls = Tls(files, 60)
    replace(files.certificate, files.certificate.read_bytes())
    with capture_logs() as events:
        tls.look()
    assert events == []


def test_certificate_and_key_may_come_one_after_the_other(files: TlsFiles) -> None:
    """A key that follows its certificate by the next look is no mistake, and nothing is said of it."""
    tls = Tls(files, 60)
    second = AUTHORITY.issue("second")
    with capture_logs() as events:
        replace(files.certificate, second.certificate)
        tls.look()
        replace(files.key, second.key)
        tls.look()
    assert [event["event"] for event in events] == ["new certificate read"]


def test_bad_files_are_told_once_and_without_the_key(files: TlsFiles) -> None:
    """What stays unusable is one error in the log, which shows nothing of any key."""
    tls = Tls(files, 60)
    wrong = pem_of(ec.generate_private_key(ec.SECP256R1()))
    replace(files.key, wrong)
    with capture_logs() as events:
        for _ in range(4):
            tls.look()
    (event,) = events
    assert event["log_level"] == "error"
    assert "is not the key of the certificate" in event["problem"]
    assert not any(line in str(event) for line in wrong.decode().splitlines())


def test_mended_mode_is_noticed(files: TlsFiles) -> None:
    """A key that was open to others and is closed again is used, though its content did not change."""
    tls = Tls(files, 60)
    second = AUTHORITY.issue("second")
    second.write(files.key.parent)
    files.key.chmod(0o644)
    with capture_logs() as events:
        tls.look()
        tls.look()
        files.key.chmod(0o600)
        tls.look()
    assert [event["log_level"] for event in events] == ["error", "info"]


async def test_looking_goes_on_after_a_fault(files: TlsFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that fails in an unforeseen way is logged, and the next one finds the new files."""
    tls, stop, looks = Tls(files, 0.01), asyncio.Event(), 0
    look = tls.look

    def fail_once() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("odd")
        look()
        stop.set()

    monkeypatch.setattr(tls, "look", fail_once)
    AUTHORITY.issue("second").write(files.key.parent)
    with capture_logs() as events:
        await asyncio.wait_for(tls.run(stop), 10)
    assert [event["event"] for event in events] == [
        "looking for new TLS files failed",
        "new certificate read",
    ]
