"""Settings that do not fit each other, one clear line for each. Pure.

What each may be by itself is ``settings.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from morag_meta.config.setting import HOW_TO_MAKE, PREFIX
from morag_meta.config.settings import Settings
from morag_meta.db.url import dialect_name

LEAST_PARTING_SECONDS: Final = 5.0
"""What a connection must outlive its oldest stream by, for that to end by the service's own word."""

_HOW_TO_MAKE_KEYS: Final = 'make one with: echo "k1:$(openssl rand -base64 32)"'
_JWT_KEY_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_TLS: Final = (
    ("tls_cert_file", "tls_key_file"),
    ("tls_key_file", "tls_cert_file"),
    ("tls_client_ca_file", "tls_cert_file"),
)


def contradictions(settings: Settings) -> Iterator[str]:
    """Give one line for each setting that does not fit another."""
    if settings.row_security and dialect_name(settings.database_url) != "postgresql":
        yield (
            f"{PREFIX}ROW_SECURITY is true, and only PostgreSQL has row security: set it to false, or give "
            f"{PREFIX}DATABASE_URL a PostgreSQL"
        )
    jwt, needed = settings.jwt_secret_key, _JWT_KEY_BYTES[settings.jwt_algorithm]
    if jwt is not None and any(len(key) < needed for key in jwt.get_secret_value().encode().split(b",")):
        yield f"{PREFIX}JWT_SECRET_KEY is too short for {settings.jwt_algorithm}: {HOW_TO_MAKE}"
    for name, other in _TLS:
        if getattr(settings, name) is not None and getattr(settings, other) is None:
            yield f"{PREFIX}{name.upper()} is set and {PREFIX}{other.upper()} is not: set both, or neither"
    for name in ("secret_key", "credential_keys"):
        if getattr(settings, name) is not None and getattr(settings, f"{name}_file") is not None:
            variable = f"{PREFIX}{name.upper()}"
            yield f"{variable} and {variable}_FILE are set: set one of them"
    if settings.connection_grace < settings.stream_max_age + LEAST_PARTING_SECONDS:
        yield (
            f"{PREFIX}GRPC_CONNECTION_GRACE is {settings.connection_grace:g} and {PREFIX}STREAM_MAX_AGE "
            f"{settings.stream_max_age:g}: a connection that ends first cuts streams without a word; "
            f"give {settings.stream_max_age + LEAST_PARTING_SECONDS:g} or more"
        )


def missing_secrets(settings: Settings) -> list[str]:
    """Give one line for each secret that serving needs, and that is not made by itself."""
    if settings.is_sqlite:
        return []
    return [
        f"{PREFIX}{name.upper()} is not set, and is made by itself on SQLite only: {fix}, "
        "then set the same value for every process and keep it safe"
        for name, fix in (("secret_key", HOW_TO_MAKE), ("credential_keys", _HOW_TO_MAKE_KEYS))
        if getattr(settings, name) is None and getattr(settings, f"{name}_file") is None
    ]
