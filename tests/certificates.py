"""Certificate authorities and certificates, made when a test asks for them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM; ``name`` is whom it is of."""

    name: str
    certificate: bytes
    key: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both, the key for its owner alone, each replaced in one step; give the files."""
        files = (folder / "server.crt", folder / "server.key")
        for file, data in zip(files, (self.certificate, self.key), strict=True):
            replace(file, data)
        return files


def replace(file: Path, data: bytes, mode: int = 0o600) -> None:
    """Put a file in the place of what is there, in one step."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_bytes(data)
    fresh.chmod(mode)
    fresh.replace(file)


class Authority:
    """One that vouches for servers and clients."""

    def __init__(self, name: str = "the tests' authority") -> None:
        """Make its key and its own certificate."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        signed = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.certificate = signed

    def issue(self, name: str, *, expired: bool = False) -> Certificate:
        """Vouch for a server or client, called ``name``, on this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        here = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        age = 2 * _DAY if expired else dt.timedelta()
        signed = self._sign(_name(name), key.public_key(), here, age)
        return Certificate(name, signed, pem_of(key))

    def _sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        extension: x509.ExtensionType,
        age: dt.timedelta = dt.timedelta(),
    ) -> bytes:
        begin = dt.datetime.now(dt.UTC) - age - _DAY
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + 2 * _DAY)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )


def shown(port: int, authority: Authority, **versions: ssl.TLSVersion) -> tuple[str, str]:
    """Shake hands with a server; give whom its certificate is of, and the version of TLS.

    Raises:
        OSError: the server is not there, or one of the two does not want to.
    """
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that this side would speak the oldest versions too
    for name, version in versions.items():
        setattr(context, name, version)
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        found = connection.getpeercert()
        assert found is not None
        subject = dict(cast("Iterable[tuple[str, str]]", (part[0] for part in found["subject"])))
        return subject["commonName"], str(connection.version())
