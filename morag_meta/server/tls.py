"""The service's certificate: read and checked at start, and read anew while it serves.

A connection keeps the certificate that it began with; what is new holds for the next handshake. Files
that cannot be used leave those before in use. What does not live here: whether the service may do
without (``listening.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from morag_meta.config.error import ConfigurationError
from morag_meta.config.setting import PREFIX
from morag_meta.config.settings import Settings

_log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, ...] | None, ...]


class TlsError(ConfigurationError):
    """The files cannot be used; the message names the file and the cause, never what is in it."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificate, key and the clients' authorities are; the last may be missing."""

    certificate: Path
    key: Path
    client_ca: Path | None

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Give the files that the settings name; None where the service speaks plaintext."""
        if settings.tls_cert_file is None or settings.tls_key_file is None:
            return None
        client_ca = settings.tls_client_ca_file
        return cls(
            Path(settings.tls_cert_file),
            Path(settings.tls_key_file),
            None if client_ca is None else Path(client_ca),
        )

    def stamp(self) -> Stamp:
        """Give what changes when a file is replaced, rewritten or opened to others."""
        paths = (self.certificate, self.key, *([] if self.client_ca is None else [self.client_ca]))
        return tuple(map(_stamp, paths))


@dataclass(frozen=True, slots=True)
class Certified:
    """What the files hold, as PEM; ``expire_time`` is the certificate's (aware UTC)."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    serial_number: str
    expire_time: dt.datetime

    @classmethod
    def read(cls, files: TlsFiles) -> Self:
        """Read and check the files.

        Raises:
            TlsError: one is missing, cannot be read, is not what it should be or does not fit another;
                the certificate has expired; the key is open to others.
        """
        certificate, key = _read("TLS_CERT_FILE", files.certificate), _read_key(files.key)
        chain = _certificates("TLS_CERT_FILE", files.certificate, certificate)
        if _public_key(files.key, key) != _public_bytes(chain[0].public_key()):
            raise TlsError(
                f"{PREFIX}TLS_KEY_FILE {files.key} is not the key of the certificate {files.certificate}"
            )
        expire_time = chain[0].not_valid_after_utc
        if expire_time <= dt.datetime.now(dt.UTC):
            raise TlsError(f"{PREFIX}TLS_CERT_FILE {files.certificate} has expired: {expire_time:%Y-%m-%d}")
        client_ca = None
        if files.client_ca is not None:
            client_ca = _read("TLS_CLIENT_CA_FILE", files.client_ca)
            _certificates("TLS_CLIENT_CA_FILE", files.client_ca, client_ca)
        return cls(certificate, key, client_ca, f"{chain[0].serial_number:x}", expire_time)

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Give it as gRPC takes it, which can use the result once."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


class Tls:
    """The certificate in use, and the look for a new one."""

    def __init__(self, files: TlsFiles, interval: float) -> None:
        """Read the files; ``run`` looks at them again every ``interval`` seconds.

        Raises:
            TlsError: they cannot be used.
        """
        self._files = files
        self._interval = interval
        self._seen = files.stamp()
        self._doubted: Stamp | None = None
        self._current = Certified.read(files)
        self._next: grpc.ServerCertificateConfiguration | None = None
        self._tell("certificate read")

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Give the certificate that the settings name; None where the service speaks plaintext.

        Raises:
            TlsError: it cannot be used.
        """
        files = TlsFiles.of(settings)
        return None if files is None else cls(files, settings.tls_reload_interval)

    def credentials(self) -> grpc.ServerCredentials:
        """Give the credentials of a port, which follow the files; clients prove themselves if they must."""
        return grpc.dynamic_ssl_server_credentials(
            self._current.configuration(),
            cast("Callable[[], grpc.ServerCertificateConfiguration]", self._fetch),  # None is: nothing new
            require_client_authentication=self._current.client_ca is not None,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Look now and then until ``stop`` is set."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._interval)
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # noqa: BLE001 - whatever it was, the next look may do better
                _log.exception("looking for new TLS files failed")

    def look(self) -> None:
        """Take up new files, if there are any that can be used."""
        stamp = self._files.stamp()
        if stamp == self._seen:
            return
        try:
            found = Certified.read(self._files)
        except TlsError as error:
            # Certificate and key may be replaced one after the other: only what stays so is a mistake.
            if stamp == self._doubted:
                self._seen = stamp
                _log.error("new TLS files are not used, those before stay in use", problem=str(error))
            self._doubted = stamp
            return
        self._seen, self._doubted = stamp, None
        if found != self._current:
            self._current = found
            self._next = found.configuration()
            self._tell("new certificate read")

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Give what is new since the last handshake (on a thread of gRPC's)."""
        found, self._next = self._next, None
        return found

    def _tell(self, event: str) -> None:
        current = self._current
        _log.info(
            event,
            file=str(self._files.certificate),
            serial_number=current.serial_number,
            expire_time=current.expire_time.isoformat(),
            client_certificates=current.client_ca is not None,
        )


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "that is no file name"
        raise TlsError(f"{PREFIX}{name} {path} cannot be read: {cause}") from None


def _read_key(path: Path) -> bytes:
    key = _read("TLS_KEY_FILE", path)
    # A group may read it, as where a group of their own holds all keys of a machine.
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o027:
        raise TlsError(f"{PREFIX}TLS_KEY_FILE {path} is open to others: chmod 600 {path}")
    return key


def _certificates(name: str, path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise TlsError(f"{PREFIX}{name} {path} holds no PEM certificate that can be read") from None


def _public_key(path: Path, data: bytes) -> bytes:
    try:
        return _public_bytes(load_pem_private_key(data, password=None).public_key())
    except TypeError:
        cause = "is encrypted, and nobody is there to decrypt it"
    except (ValueError, UnsupportedAlgorithm):
        cause = "holds no PEM private key that can be read"
    raise TlsError(f"{PREFIX}TLS_KEY_FILE {path} {cause}")


def _public_bytes(key: object) -> bytes:
    data: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return data
