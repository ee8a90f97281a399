"""The settings of a process: what may be set, and its limits.

What does not live here: reading them and telling of a bad value (``loading.py``), settings that do not fit
each other (``contradictions.py``), variables that are no settings (``variables.py``), making missing secrets
(``auth/secret_files.py``), the meaning of a database URL (``db/url.py``) and of an address
(``server/address.py``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from morag_meta.config.setting import HOW_TO_MAKE, PREFIX, any_case, count, rate, seconds, setting, switch
from morag_meta.db.url import UrlError, dialect_name, masked, normalize
from morag_meta.strength import weakness

ENV_FILE = ".env"

_PARTING_SECONDS = 60.0
_MOST_GENERATIONS = 2


def _known_database(url: str) -> str:
    try:
        normalize(url)
    except UrlError as error:
        raise PydanticCustomError("url", "{problem}", {"problem": str(error)}) from None
    return url


def _random_enough(secret: SecretStr) -> SecretStr:
    each = [one.strip() for one in secret.get_secret_value().split(",")]
    problem = next(filter(None, (weakness(one.encode()) for one in each)), "")
    if len(each) > _MOST_GENERATIONS:
        problem = "there are more than two"
    if problem:
        raise PydanticCustomError("secret", "{problem}", {"problem": problem})
    return secret


def _secret(what: str) -> Any:
    return setting(None, f"{what} A second one, behind a comma, is accepted and makes nothing.", HOW_TO_MAKE)


def _private(what: str) -> Any:
    return setting(None, what, "the name of a file that only its owner may read")


def _pem(what: str) -> Any:
    return setting(None, what, "the name of a PEM file")


def _quota(of: str) -> Any:
    what = f"Most {of} of a user who has no limit of their own for that; unlimited if not set."
    return setting(None, what, "a whole number from 0 to 2^53", ge=0, le=2**53)


DatabaseUrl = Annotated[str, AfterValidator(_known_database)]
Secret = Annotated[SecretStr, AfterValidator(_random_enough)]


class Settings(BaseSettings):
    """Every setting of a process, from ``MORAG_*`` variables, else ``.env``, else the defaults.

    Use :func:`load`, which tells a bad value in the house's way.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        str_strip_whitespace=True,
    )

    database_url: DatabaseUrl = setting(
        "sqlite:///./morag.db",
        "The database.",
        "sqlite:///<file>, postgresql://<user>@<host>/<name> or mariadb://<user>@<host>/<name>",
        repr=False,
    )
    database_pool_size: int = count(5, "Connections kept per process.", 1, 50)
    database_max_overflow: int = count(3, "Connections more than the pool under load.", 0, 100)
    database_pool_timeout: float = seconds(30, "Longest wait for a connection.", 0.1, 600)
    database_pool_recycle: float = seconds(3600, "Age after which a connection is renewed.", 1, 604_800)
    database_pre_ping: bool = switch(default=False, what="Test each connection before it is used.")
    database_echo: bool = switch(default=False, what="Log statements; parameters stay hidden.")
    database_statement_timeout: float = seconds(10, "Longest run of one statement.", 0.1, 3600)
    database_queue: int = count(256, "Units of work that may wait before SERVER_BUSY.", 1, 100_000)
    row_security: bool = switch(
        default=False, what="Serve only where PostgreSQL itself keeps users' rows apart."
    )
    database_connect_timeout: float = seconds(5, "Longest wait to connect.", 1, 300)

    grpc_address: str = setting(
        "127.0.0.1:50051", "Where the service listens.", "<host>:<port> with a port from 0 to 65535"
    )
    allow_plaintext: bool = switch(default=False, what="Listen beyond this machine without TLS.")
    tls_cert_file: str | None = _pem("The service's certificate and those between it and its authority.")
    tls_key_file: str | None = _pem("The private key of that certificate, which others may not read.")
    tls_client_ca_file: str | None = _pem("With it, every client needs a certificate of these authorities.")
    tls_reload_interval: float = seconds(5, "Pause between two looks for new TLS files.", 0.1, 3600)
    health_address: str | None = setting(
        None,
        "Where health alone is told too, always without TLS.",
        "<host>:<port> with a port from 0 to 65535",
    )
    grpc_reflection: bool = switch(default=True, what="Offer gRPC server reflection.")
    grpc_max_request_bytes: int = count(4 * 1024 * 1024, "Largest request in bytes.", 1024, 64 * 1024 * 1024)
    grpc_max_metadata_bytes: int = count(16_384, "Largest metadata of a call in bytes.", 4096, 1024 * 1024)
    grpc_max_connection_calls: int = count(
        1000, "Calls, open streams among them, that a connection may have at once.", 1, 1_000_000
    )
    grpc_min_ping_interval: float = seconds(
        10, "Clients that ping more often are disconnected after some patience.", 0.1, 3600
    )
    grpc_connection_age: float = seconds(
        3600, "Age, jittered, at which a connection takes no new calls.", 1, 604_800
    )
    grpc_connection_grace: float | None = setting(
        None,
        "Time that calls get after that; `MORAG_STREAM_MAX_AGE` and a minute if not set.",
        "a number of seconds that exceeds MORAG_STREAM_MAX_AGE by 5 at least",
        ge=1,
        allow_inf_nan=False,
    )
    shutdown_grace: float = seconds(10, "Time that calls in flight get at shutdown.", 0, 3600)

    stream_heartbeat: float = seconds(10, "Silence after which a stream sends a heartbeat.", 0.05, 3600)
    stream_write_timeout: float = seconds(
        20, "Time after which a reader that takes nothing is cut.", 0.1, 3600
    )
    stream_max_age: float = seconds(3600, "Age, jittered, at which a stream asks to be resumed.", 1, 604_800)
    stream_limit: int = count(
        10_000, "Open streams and waiting LeaseJobs calls of one user in one process.", 1, 1_000_000
    )
    stream_poll_interval: float = seconds(0.2, "Pause between two looks for new events.", 0.01, 60)

    lease_duration: float = seconds(90, "Life of a lease after each renewal by default.", 1, 3600)
    remote_fallback: float = seconds(
        300, "Wait for a remote worker before a job is left to local ones.", 1, 604_800
    )
    retry_backoff: float = seconds(30, "Pause after the first lost lease of a job; then doubled.", 0, 3600)
    retry_backoff_limit: float = seconds(300, "Longest pause after a lost lease.", 0, 86_400)
    reaper_interval: float = seconds(1, "Pause between two looks for jobs that are overdue.", 0.05, 60)
    job_retention: float = seconds(
        90 * 86_400, "How long jobs are kept after their end, with their events.", 1, 3650 * 86_400
    )
    event_retention: float = seconds(
        90 * 86_400,
        "How long events are kept; a job's newest one stays as long as the job.",
        1,
        3650 * 86_400,
    )
    audit_retention_days: int = count(365, "How long the audit is kept, in days.", 1, 36_500)

    secret_key: Secret | None = _secret("The one secret that the service's own keys are derived from.")
    secret_key_file: str | None = _private("A file that holds it instead, read again when it is replaced.")
    credential_keys: SecretStr | None = setting(
        None,
        "The key ring that encrypts stored server credentials.",
        "<id>:<base64 of 32 random bytes>, several separated by commas, the first one encrypts",
    )
    credential_keys_file: str | None = _private("A file that holds it instead, as `secrets rotate` does.")
    jwt_secret_key: Secret | None = _secret("The key of access tokens, instead of one derived.")
    jwt_algorithm: Annotated[Literal["HS256", "HS384", "HS512"], any_case("HS256", "HS384", "HS512")] = (
        setting("HS256", "How access tokens are signed.", "HS256, HS384 or HS512")
    )
    jwt_expiration_hours: int = count(24, "Longest life of a session, in hours.", 1, 168)
    enable_user_registration: bool = switch(default=True, what="Let anybody register.")
    default_user_role: Annotated[Literal["USER", "VIEWER"], any_case("USER", "VIEWER")] = setting(
        "USER", "The role of who registers.", "USER or VIEWER (never ADMIN)"
    )
    login_window: float = seconds(
        3600, "Time in which failed log-ins up to the numbers below are forgotten again.", 1, 604_800
    )
    login_failures: int = count(
        10, "Failed log-ins for one account from one address; 0 for no bound.", 0, 100_000
    )
    login_account_failures: int = count(
        100,
        "Failed log-ins for one account from all addresses at which its user has not logged in for 30 days; "
        "0 for no bound.",
        0,
        1_000_000,
    )
    login_address_failures: int = count(
        300, "Failed log-ins from one address, or IPv6 network of 64 bits; 0 for no bound.", 0, 1_000_000
    )
    password_reset_life: float = seconds(
        3600,
        "How long a token that resets a password works, and a request for one waits to be taken.",
        60,
        604_800,
    )
    bcrypt_cost: int = count(
        12, "Cost of the hash of a password that is set from now on, as a power of two.", 10, 16
    )
    default_quota_documents: int | None = _quota("documents")
    default_quota_storage_bytes: int | None = _quota("bytes of documents")
    default_quota_databases: int | None = _quota("databases")
    default_quota_servers: int | None = _quota("servers")
    default_quota_api_keys: int | None = _quota("API keys")
    default_quota_open_jobs: int | None = _quota("open jobs")
    api_key_require_expiry: bool = switch(default=False, what="Make no API key that has no end.")
    api_key_longest_life: float = seconds(
        0,
        "How far off the end of an API key may be, which then must have one; 0 for no limit.",
        0,
        3650 * 86_400,
    )
    api_key_rate: float = rate(
        0, "Calls per second of an API key that has no limit of its own; 0 for no limit. Of each process."
    )
    api_key_burst: int = count(0, "Calls at once of such a key; 0 for those of a second.", 0, 1_000_000)
    public_rate: float = rate(
        20,
        "Calls per second without a credential (Login), and apart from them with API keys that do not exist, "
        "of one address; 0 for no limit. Of each process.",
    )
    public_burst: int = count(500, "Such calls at once; 0 for those of a second.", 0, 1_000_000)
    api_key_usage_interval: float = seconds(5, "Pause between two writes of key usage.", 0.05, 3600)

    workers: int = count(1, "Serving processes that share the port.", 1, 64)
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], any_case("DEBUG", "INFO", "WARNING", "ERROR")
    ] = setting("INFO", "The least severe line that is logged.", "DEBUG, INFO, WARNING or ERROR")
    log_format: Annotated[Literal["json", "console"] | None, any_case("json", "console")] = setting(
        None, "How lines are logged; console on a terminal, json elsewhere.", "json or console"
    )
    auto_migrate: bool = switch(default=True, what="Bring the schema up to date at start.")

    @property
    def connection_grace(self) -> float:
        """Seconds that the calls of a connection get when it has reached its age."""
        given = self.grpc_connection_grace
        return self.stream_max_age + _PARTING_SECONDS if given is None else given

    @property
    def default_quotas(self) -> dict[str, int]:
        """The limits that hold for users who have none of their own, by resource; none for no limit."""
        begin = "default_quota_"
        names = [name for name in type(self).model_fields if name.startswith(begin)]
        given = {name.removeprefix(begin): getattr(self, name) for name in names}
        return {resource: limit for resource, limit in given.items() if limit is not None}

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return dialect_name(self.database_url) == "sqlite"

    def __repr_args__(self) -> Any:
        """Show the database URL masked; secrets show as asterisks by their type."""
        yield "database_url", masked(self.database_url)
        yield from super().__repr_args__()
