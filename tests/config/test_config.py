"""Settings: defaults, where they come from, and how a bad one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from morag_meta.config.error import ConfigurationError
from morag_meta.config.loading import load, require_secrets
from morag_meta.config.settings import Settings
from morag_meta.config.variables import unknown_variables

# No example, and no secret either: only the tests know it.
GOOD = "kT3vXw9qLm2rB7nZcY5hJd8sFg4pQa6uEo1iRxWv0NzM"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("MORAG_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _problems(**overrides: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(**overrides)
    return str(caught.value)


def test_defaults_are_the_documented_ones() -> None:
    """Without any variable the settings are those that the documents promise."""
    settings = load()
    assert settings.database_url == "sqlite:///./morag.db"
    assert settings.database_pool_size + settings.database_max_overflow == 8
    assert (settings.database_pool_timeout, settings.database_pool_recycle) == (30, 3600)
    assert not settings.database_pre_ping
    assert not settings.database_echo
    assert settings.grpc_address == "127.0.0.1:50051"
    assert (settings.jwt_algorithm, settings.jwt_expiration_hours) == ("HS256", 24)
    assert settings.enable_user_registration
    assert (settings.default_user_role, settings.workers, settings.bcrypt_cost) == ("USER", 1, 12)


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("DATABASE_POOL_SIZE", "many", "whole number from 1 to 50"),
        ("DATABASE_POOL_SIZE", "0", "whole number from 1 to 50"),
        ("DATABASE_POOL_TIMEOUT", "nan", "number of seconds from 0.1 to 600"),
        ("DATABASE_ECHO", "perhaps", "true or false"),
        ("DATABASE_URL", "oracle://x/y", "postgresql://"),
        ("DATABASE_URL", "sqlite://", "name a file"),
        ("JWT_ALGORITHM", "none", "HS256, HS384 or HS512"),
        ("JWT_EXPIRATION_HOURS", "169", "whole number from 1 to 168"),
        ("DEFAULT_USER_ROLE", "ADMIN", "USER or VIEWER"),
        ("LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING or ERROR"),
        ("LOG_FORMAT", "xml", "json or console"),
        ("WORKERS", "0", "whole number from 1 to 64"),
        ("BCRYPT_COST", "31", "whole number from 10 to 16"),
    ],
)
def test_bad_value_names_variable_value_and_fix(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, fix: str
) -> None:
    """One line says which variable it is, what it holds and what it may hold."""
    monkeypatch.setenv(f"MORAG_{name}", value)
    told = _problems()
    assert told.count("\n") == 0
    assert f"MORAG_{name} " in told
    assert fix in told
    assert value in told or name == "DATABASE_URL"


def test_bad_option_is_named_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line says is told by the option's name, what the environment says by its own."""
    monkeypatch.setenv("MORAG_BCRYPT_COST", "y")
    told = _problems(workers=0).splitlines()
    assert sorted(line.split(": ")[0] for line in told) == ["--workers is '0'", "MORAG_BCRYPT_COST is 'y'"]


def test_every_bad_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes give two lines, so that nobody mends them one start at a time."""
    monkeypatch.setenv("MORAG_WORKERS", "x")
    monkeypatch.setenv("MORAG_BCRYPT_COST", "y")
    assert {line.split()[0] for line in _problems().splitlines()} == {"MORAG_WORKERS", "MORAG_BCRYPT_COST"}


@pytest.mark.parametrize(
    "value",
    [
        "your-secret-key-change-in-production",
        "changeme-changeme-changeme-changeme-1234",
        "this-is-an-example-for-the-documentation",
        "x" * 64,
        "qK7#vT2!zR9@mW4$" * 3,
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "kT3vXw9qLm2rB7nZ",
    ],
)
@pytest.mark.parametrize("name", ["SECRET_KEY", "JWT_SECRET_KEY"])
def test_weak_secret_is_refused_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """An example, a short or a repetitive secret is refused with the command that makes one, unshown."""
    monkeypatch.setenv(f"MORAG_{name}", value)
    told = _problems()
    assert f"MORAG_{name} " in told
    assert "openssl rand -base64 48" in told
    assert value not in told


def test_jwt_key_must_be_as_long_as_its_hash() -> None:
    """HS512 needs 64 bytes (RFC 7518, 3.2), and the refusal does not show the key."""
    load(jwt_secret_key=GOOD)
    told = _problems(jwt_secret_key=GOOD, jwt_algorithm="HS512")
    assert "MORAG_JWT_SECRET_KEY" in told
    assert GOOD not in told


def test_password_of_a_bad_url_is_not_shown() -> None:
    """A URL that is refused is told without its password."""
    told = _problems(database_url="oracle://morag:hunter2@host/db")
    assert told.startswith("--database-url is not accepted: ")
    assert "hunter2" not in told


def test_settings_show_no_secret() -> None:
    """Neither repr nor str shows a secret or the password of the database."""
    settings = load(
        database_url="postgresql://morag:hunter2@host/db",
        secret_key=GOOD,
        jwt_secret_key=GOOD,
        credential_keys=f"k1:{GOOD}",
    )
    for shown in (repr(settings), str(settings), f"{settings}"):
        assert GOOD not in shown
        assert "hunter2" not in shown
        assert "postgresql://morag:***@host/db" in shown


def test_validation_error_shows_no_input() -> None:
    """Not even the library's own error, raised without ``load``, quotes a value."""
    with pytest.raises(ValueError, match="secret_key") as caught:
        Settings(secret_key="hunter2hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://u:p@h/d", "mariadb://u:p@h/d"])
def test_servers_need_secrets_given(url: str) -> None:
    """Beside another database than SQLite a missing secret is refused, with how to make it."""
    with pytest.raises(ConfigurationError) as caught:
        require_secrets(load(database_url=url))
    first, second = caught.value.problems
    assert "MORAG_SECRET_KEY" in first
    assert "openssl rand -base64 48" in first
    assert "MORAG_CREDENTIAL_KEYS" in second
    assert "openssl rand -base64 32" in second
    given = load(database_url=url, secret_key=GOOD, credential_keys=f"k1:{GOOD}")
    assert require_secrets(given) is given


def test_sqlite_needs_no_secret_given() -> None:
    """On SQLite the secrets are made at first start, so none is required."""
    settings = load(database_url="sqlite:///x.db")
    assert require_secrets(settings) is settings


def test_environment_wins_over_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """``.env`` is read, and a variable of the environment wins over it."""
    Path(".env").write_text("MORAG_WORKERS=3\nMORAG_BCRYPT_COST=11\nOTHER=1\n")
    monkeypatch.setenv("MORAG_WORKERS", "2")
    settings = load()
    assert (settings.workers, settings.bcrypt_cost) == (2, 11)


def test_command_line_wins_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An override wins, and None is no override."""
    monkeypatch.setenv("MORAG_WORKERS", "2")
    assert load(workers=4).workers == 4
    assert load(workers=None).workers == 2


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """What compose files pass for an unset variable is no value."""
    monkeypatch.setenv("MORAG_WORKERS", "")
    assert load().workers == 1


def test_unreadable_env_file_is_told() -> None:
    """A ``.env`` that is no text is one clear line."""
    Path(".env").write_bytes(b"MORAG_WORKERS=\xff\xfe\n")
    assert ".env cannot be read" in _problems()


def test_letter_case_of_choices_does_not_matter() -> None:
    """Levels, formats, roles and algorithms may be written in any case."""
    settings = load(log_level="debug", log_format="JSON", default_user_role="viewer", jwt_algorithm="hs512")
    assert (settings.log_level, settings.log_format) == ("DEBUG", "json")
    assert (settings.default_user_role, settings.jwt_algorithm) == ("VIEWER", "HS512")


def test_unknown_variable_is_warned_of_with_the_nearest_name() -> None:
    """A misspelling in the environment or in ``.env`` is told with what was probably meant."""
    Path(".env").write_text("MORAG_WORKER=3\nUNRELATED=1\n")
    warnings = unknown_variables({"MORAG_DATABSE_URL": "x", "MORAG_API_KEY": "k", "MORAG_WORKERS": "1"})
    assert warnings == [
        "MORAG_DATABSE_URL is not a setting; did you mean MORAG_DATABASE_URL?",
        "MORAG_WORKER is not a setting; did you mean MORAG_WORKERS?",
    ]


def test_every_setting_says_what_it_is_and_accepts() -> None:
    """The documentation of configuration is made of this, so nothing may be missing."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict), name
        assert field.json_schema_extra["accepts"], name


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tls_cert_file": "c"}, "MORAG_TLS_CERT_FILE is set and MORAG_TLS_KEY_FILE is not"),
        ({"tls_key_file": "k"}, "MORAG_TLS_KEY_FILE is set and MORAG_TLS_CERT_FILE is not"),
        ({"tls_client_ca_file": "a"}, "MORAG_TLS_CLIENT_CA_FILE is set and MORAG_TLS_CERT_FILE is not"),
        ({"grpc_connection_grace": 3604}, "MORAG_GRPC_CONNECTION_GRACE is 3604"),
        ({"grpc_connection_grace": 600, "stream_max_age": 596}, "give 601 or more"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_told(given: dict[str, object], told: str) -> None:
    """Half of TLS, and a connection that may end before its streams, are one line each."""
    problem = _problems(**given)
    assert told in problem
    assert problem.count("\n") == 0


def test_connection_outlives_its_streams_by_itself() -> None:
    """Whatever the streams' age is, the grace of connections exceeds it unless it is set."""
    assert load(stream_max_age=604_800).connection_grace == 604_860
    assert load(grpc_connection_grace=3605).connection_grace == 3605
