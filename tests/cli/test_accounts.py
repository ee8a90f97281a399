"""``morag-meta user`` and ``morag-meta key``: accounts and keys made straight in the database."""

from __future__ import annotations

import datetime as dt
import json
import time

import bcrypt
import grpc
import pytest
import sqlalchemy as sa

from morag_meta.auth.passwords import hash_password
from morag_meta.db.schema import audit_events
from morag_meta.exits import ExitCode
from morag_meta.ids import new_id
from moragmeta.v1 import api_keys_pb2, databases_pb2, servers_pb2, users_pb2
from tests.cli.command import Command
from tests.grants.scene import tenant
from tests.service import Service, User

pytestmark = pytest.mark.usefixtures("secrets_given")


@pytest.fixture
def url(service: Service) -> str:
    """Give the database of a running server, with the schema and whatever other tests have made."""
    return service.url


def test_user_is_made_with_the_password_of_stdin(cli: Command, service: Service, url: str) -> None:
    """The first line of standard input is the password, and it is printed nowhere."""
    email = f"{new_id()}@example.org"
    words = ["user", "create", email.upper(), "--name", "Ada L.", "--admin", "-o", "json"]
    result = cli(*words, "--database-url", url, stdin="correct horse\nignored\n")
    assert result.code is ExitCode.OK, result.err
    assert (result.json["email"], result.json["role"]) == (email, "ADMIN")
    assert "correct horse" not in result.out + result.err
    with service.database.unit_of_work() as uow:
        row = uow.users.get("-", result.json["id"])
        assert bcrypt.checkpw(b"correct horse", row["password_hash"].encode())
        assert (row["name"], row["active"]) == ("Ada L.", True)
        assert uow.settings.get("-", row["id"])["theme"] == "LIGHT"


@pytest.mark.parametrize(
    ("stdin", "code"),
    [("", ExitCode.USAGE), ("short\n", ExitCode.REFUSED), ("x" * 73 + "\n", ExitCode.REFUSED)],
)
def test_user_without_a_fit_password_is_refused(
    cli: Command, service: Service, url: str, stdin: str, code: ExitCode
) -> None:
    """No password, a short one and one that bcrypt would cut are refused in one line."""
    result = cli("user", "create", "new@example.org", "--database-url", url, stdin=stdin)
    assert result.code is code
    assert result.err.count("\n") == 1
    with service.database.unit_of_work() as uow:
        assert uow.users.find_by_email("new@example.org") is None


def test_password_is_no_option(cli: Command, service: Service, url: str) -> None:
    """A password cannot be given as an argument, where other users of the machine would see it."""
    result = cli("user", "create", "new@example.org", "--password", "x" * 20, "--database-url", url)
    assert result.code is ExitCode.USAGE


def test_taken_email_is_refused(cli: Command, user: User, url: str) -> None:
    """A second user with the same email, in whatever case, is refused."""
    result = cli("user", "create", user.email.upper(), "--no-password", "--database-url", url)
    assert result.code is ExitCode.REFUSED
    assert result.err.count("\n") == 1


def test_key_is_made_listed_and_revoked(cli: Command, user: User, url: str) -> None:
    """A key's secret is printed once; the list shows its prefix alone, and revoked ones only when asked."""
    database = ("--database-url", url)
    mine = ("--owner", user.email)
    words = ["key", "create", "ci", *mine, "--scope", "documents:read", "--expire-days", "2"]
    made = cli(*words, "-o", "json", *database).json
    listed = cli("key", "list", *mine, "-o", "json", *database)
    assert made["key"] not in listed.out
    row = listed.jsons[0]
    assert (row["id"], row["name"], row["state"]) == (made["id"], "ci", "ACTIVE")
    assert row["scopes"] == ["documents:read"]
    assert made["key"].startswith(row["key_prefix"])
    left = dt.datetime.fromisoformat(row["expire_time"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=1, hours=23) < left <= dt.timedelta(days=2)
    assert cli("key", "revoke", made["id"], *database).code is ExitCode.OK
    left_over = cli("key", "list", *mine, *database, "-o", "json").jsons
    assert made["id"] not in [each["id"] for each in left_over]
    revoked = cli("key", "list", *mine, "--all", *database, "-o", "json").jsons[0]
    assert (revoked["id"], revoked["state"]) == (made["id"], "REVOKED")
    assert made["id"] in cli("key", "list", "--all", *database).out


def test_key_is_disabled_enabled_and_replaced(cli: Command, service: Service, user: User) -> None:
    """What the command does to a key holds at a server over the same database and secret."""
    database = ["--database-url", service.url]
    key = cli("key", "create", "cli", "--owner", user.email, "-o", "json", *database).json

    def lets_in(secret: str) -> bool:
        try:
            service.channel(api_key=secret).users.GetUser(users_pb2.GetUserRequest(id="me"))
        except grpc.RpcError:
            return False
        return True

    def comes_to(secret: str, *, allowed: bool) -> bool:
        give_up = time.monotonic() + 20  # another process hears of it by its watch
        while lets_in(secret) is not allowed and time.monotonic() < give_up:
            time.sleep(0.1)
        return lets_in(secret) is allowed

    assert lets_in(key["key"])
    assert cli("key", "disable", key["id"], *database).out == f"disabled cli {key['id']}\n"
    assert comes_to(key["key"], allowed=False)
    assert cli("key", "list", "--owner", user.email, "-o", "json", *database).jsons[0]["state"] == "DISABLED"
    assert cli("key", "enable", key["id"], *database).code is ExitCode.OK
    assert comes_to(key["key"], allowed=True)
    new = cli("key", "rotate", key["id"], "--grace-hours", "0", "-o", "json", *database).json
    assert (new["predecessor_id"], new["id"] != key["id"]) == (key["id"], True)
    assert comes_to(key["key"], allowed=False)
    assert lets_in(new["key"])
    again = cli("key", "rotate", key["id"], *database)
    assert (again.code, again.err) == (ExitCode.REFUSED, "error: the key has a successor; change that one\n")


def test_made_key_opens_the_service(cli: Command, service: Service, user: User) -> None:
    """What key create prints is accepted by a server over the same database and secret."""
    printed = cli("key", "create", "cli", "--owner", user.email, "--database-url", service.url).out
    channel = service.channel(api_key=printed.removeprefix("API key: ").strip())
    assert channel.users.GetUser(users_pb2.GetUserRequest(id="me")).id == user.id


def test_a_narrowed_key_is_made(cli: Command, service: Service, user: User, url: str) -> None:
    """Key create narrows a key to databases and servers that are there, and key list shows to which."""
    server = servers_pb2.Server(name="s", kind=servers_pb2.SERVER_KIND_QDRANT, host="h", port=1)
    made = user.channel.servers.CreateServer(servers_pb2.CreateServerRequest(server=server))
    words = ["key", "create", "narrow", "--owner", user.email, "--database-url", url]
    assert cli(*words, "--database", new_id()).code == ExitCode.NOT_FOUND
    many = [word for _ in range(33) for word in ("--server", new_id())]
    assert cli(*words, *many).code == ExitCode.REFUSED
    key = cli(*words, "--server", made.id, "-o", "json").json
    listed = cli("key", "list", "--owner", user.email, "-o", "json", "--database-url", url).jsons
    assert [each["server_ids"] for each in listed if each["id"] == key["id"]] == [[made.id]]
    asked = api_keys_pb2.GetCurrentPrincipalRequest()
    principal = service.channel(api_key=key["key"]).api_keys.GetCurrentPrincipal(asked)
    assert list(principal.server_ids) == [made.id]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["create", "k", "--owner", "nobody@example.org"], ExitCode.NOT_FOUND),
        (["create", "k", "--owner", "no email"], ExitCode.REFUSED),
        (["create", "k", "--owner", "USER", "--scope", "no:such"], ExitCode.REFUSED),
        (["create", "k"], ExitCode.USAGE),
        (["list", "--owner", "nobody@example.org"], ExitCode.NOT_FOUND),
        (["revoke", new_id()], ExitCode.NOT_FOUND),
    ],
)
def test_wrong_key_commands_are_one_line(
    cli: Command, user: User, url: str, words: list[str], code: ExitCode
) -> None:
    """What cannot be done is refused in one line with its exit code, and makes no key."""
    words = [user.email if word == "USER" else word for word in words]
    result = cli("key", *words, "--database-url", url)
    assert result.code is code
    assert result.err.count("\n") == 1
    kept = cli("key", "list", "--all", "--owner", user.email, "-o", "json", "--database-url", url).jsons
    assert [each["id"] for each in kept] == [user.key_id]


def test_scope_beyond_the_owners_role_is_refused(cli: Command, service: Service, url: str) -> None:
    """A VIEWER gets no key that writes."""
    viewer = service.new_user("VIEWER")
    words = ["key", "create", "k", "--owner", viewer.email, "--scope", "documents:write"]
    assert cli(*words, "--database-url", url).code is ExitCode.REFUSED


def test_commands_need_a_current_schema(cli: Command, empty_url: str) -> None:
    """Before db upgrade, users and keys are refused with the command that helps."""
    for words in (["user", "create", "a@b.dev", "--no-password"], ["key", "list"]):
        result = cli(*words, "--database-url", empty_url)
        assert result.code is ExitCode.SCHEMA
        assert "db upgrade" in result.err


def test_a_database_is_shared_and_no_longer(cli: Command, service: Service, user: User, url: str) -> None:
    """What grant give shares is listed by database and by user, and ends with grant revoke."""
    owner, place = tenant(service), ("--database-url", url)
    given = cli("grant", "give", owner.shared, user.email, "--writer", *place)
    assert (given.code, given.out) == (ExitCode.OK, f"{user.email} is WRITER of {owner.shared}\n")
    by_database = cli("grant", "list", "--database", owner.shared, "-o", "json", *place).json
    assert by_database == cli("grant", "list", "--user", user.email, "-o", "json", *place).json
    assert (by_database["grantee_id"], by_database["level"]) == (user.id, "WRITER")
    assert by_database["grantor_id"] is None
    assert user.id in cli("grant", "list", "--database", owner.shared, *place).out
    get = databases_pb2.GetDatabaseRequest(id=owner.shared)
    assert user.channel.databases.GetDatabase(get).id == owner.shared
    assert cli("grant", "revoke", owner.shared, user.email, *place).code is ExitCode.OK
    assert cli("grant", "list", "--user", user.email, "-o", "json", *place).jsons == []
    assert cli("grant", "revoke", owner.shared, user.email, *place).code is ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["give", new_id(), "USER"], ExitCode.NOT_FOUND),
        (["give", "SHARED", "nobody@example.org"], ExitCode.NOT_FOUND),
        (["give", "SHARED", "OWNER"], ExitCode.REFUSED),
        (["list"], ExitCode.USAGE),
        (["list", "--database", "SHARED", "--user", "USER"], ExitCode.USAGE),
        (["list", "--database", new_id()], ExitCode.NOT_FOUND),
    ],
)
def test_wrong_grant_commands_are_one_line(
    cli: Command, service: Service, user: User, words: list[str], code: ExitCode
) -> None:
    """What cannot be shared or listed is refused in one line with its exit code."""
    owner = tenant(service)
    names = {"USER": user.email, "OWNER": owner.user.email, "SHARED": owner.shared}
    result = cli("grant", *(names.get(word, word) for word in words), "--database-url", service.url)
    assert result.code is code
    assert result.err.count("\n") == 1


def test_keys_are_called_by_their_name(cli: Command, user: User, url: str) -> None:
    """People read of an API key, not of the api_key that programs know."""
    words = ["key", "create", "twice", "--owner", user.email, "--database-url", url]
    assert cli(*words).code is ExitCode.OK
    assert cli(*words).err == "error: an API key with this name already exists\n"
    assert cli("key", "revoke", "nosuch", "--database-url", url).err == "error: API key nosuch not found\n"


@pytest.fixture
def session(service: Service, user: User) -> users_pb2.LoginResponse:
    """Open a session of the user, with a password of the command line's."""
    with service.database.unit_of_work() as uow:
        row = uow.users.lock("-", user.id)
        uow.users.change(row, password_hash=hash_password("correct horse", 4))
        uow.commit()
    request = users_pb2.LoginRequest(email=user.email, password="correct horse")
    return service.channel().users.Login(request)


def _is_over(service: Service, session: users_pb2.LoginResponse) -> bool:
    request = users_pb2.RefreshTokenRequest(refresh_token=session.refresh_token)
    try:
        service.channel().users.RefreshToken(request)
    except grpc.RpcError:
        return True
    return False


def test_sessions_are_listed_and_ended(
    cli: Command, service: Service, user: User, url: str, session: users_pb2.LoginResponse
) -> None:
    """The list says from where each session is used; one is ended by its id, or all are."""
    login = users_pb2.LoginRequest(email=user.email, password="correct horse")
    others = [service.channel().users.Login(login) for _ in range(2)]
    listed = cli("user", "sessions", user.email.upper(), "-o", "json", "--database-url", url).jsons
    assert [row["address"] for row in listed] == ["127.0.0.1"] * 3
    assert listed == sorted(listed, key=lambda row: row["create_time"], reverse=True)
    words = ("user", "end-sessions", user.email, "--database-url", url)
    one = cli(*words, "--session", listed[-1]["id"])
    assert one.out == f"ended 1 session of {user.email}\n"
    assert (_is_over(service, session), _is_over(service, others[0])) == (True, False)
    assert cli(*words).out == f"ended 2 sessions of {user.email}\n"
    assert _is_over(service, others[1])
    assert cli("user", "sessions", user.email, "-o", "json", "--database-url", url).out == ""


def test_only_the_users_own_session_is_ended(
    cli: Command, service: Service, user: User, url: str, session: users_pb2.LoginResponse
) -> None:
    """The id of a session that is somebody else's is refused, and the session goes on."""
    (row,) = cli("user", "sessions", user.email, "-o", "json", "--database-url", url).jsons
    words = ("user", "end-sessions", service.admin.email, "--session", row["id"], "--database-url", url)
    assert cli(*words).code is ExitCode.NOT_FOUND
    assert not _is_over(service, session)


def test_a_reset_token_is_printed_and_works(
    cli: Command, service: Service, user: User, url: str, session: users_pb2.LoginResponse
) -> None:
    """The printed token sets a new password through the server; until then nothing has changed."""
    made = cli("user", "reset-password", user.email, "-o", "json", "--database-url", url).json
    assert made["user_id"] == user.id
    assert dt.datetime.fromisoformat(made["expire_time"]) > dt.datetime.now(dt.UTC)
    assert not _is_over(service, session)
    plain = cli("user", "reset-password", user.email, "--database-url", url)
    token = plain.out.split("\n")[0].removeprefix("reset token: ")
    request = users_pb2.ResetPasswordRequest(token=token, new_password="another horse")
    service.channel().users.ResetPassword(request)
    login = users_pb2.LoginRequest(email=user.email, password="another horse")
    assert service.channel().users.Login(login).user.id == user.id
    assert _is_over(service, session)


def test_nobody_is_given_a_token(cli: Command, service: Service, user: User, url: str) -> None:
    """An email of nobody and of a deactivated user is refused in one line."""
    service.admin.channel.users.DeactivateUser(users_pb2.DeactivateUserRequest(id=user.id))
    for email, code in ((user.email, ExitCode.REFUSED), ("nobody@example.org", ExitCode.NOT_FOUND)):
        result = cli("user", "reset-password", email, "--database-url", url)
        assert (result.code, result.err.count("\n")) == (code, 1)


def test_everything_of_a_user_is_exported_as_json_lines(
    cli: Command, service: Service, user: User, url: str
) -> None:
    """Each row of the user is one line, of nobody else, without a hash; who did it stands in the audit."""
    result = cli("user", "export", user.email, "--database-url", url)
    assert result.code is ExitCode.OK, result.err
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert {(row["table"], row["row"].get("owner_id", row["row"].get("id"))) for row in rows} == {
        (table, user.id) for table in ("users", "user_settings", "api_keys")
    }
    assert "hash" not in result.out
    with service.database.engine.connect() as connection:
        noted = connection.execute(
            sa.select(audit_events.c.actor).where(audit_events.c.event == "user.export_data")
        ).scalars()
        assert "OPERATOR" in noted
    assert cli("user", "export", "nobody@example.org", "--database-url", url).code is ExitCode.NOT_FOUND
