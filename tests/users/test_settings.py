"""A user's settings over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from moragmeta.v1 import databases_pb2, servers_pb2
from moragmeta.v1 import users_pb2 as pb
from tests.refusals import refused
from tests.service import Service, User


def _update(*paths: str, **fields: Any) -> pb.UpdateUserSettingsRequest:
    return pb.UpdateUserSettingsRequest(
        settings=pb.UserSettings(**fields), update_mask=FieldMask(paths=paths)
    )


def _get(user: User, owner_id: str = "") -> pb.UserSettings:
    return user.channel.users.GetUserSettings(pb.GetUserSettingsRequest(owner_id=owner_id))


def _struct(value: dict[str, Any]) -> Struct:
    struct = Struct()
    struct.update(value)
    return struct


def _nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


def _database_of(user: User) -> str:
    server = user.channel.servers.CreateServer(
        servers_pb2.CreateServerRequest(
            server=servers_pb2.Server(name="s", kind=servers_pb2.SERVER_KIND_CHROMA, host="h", port=1)
        )
    )
    return user.channel.databases.CreateDatabase(
        databases_pb2.CreateDatabaseRequest(database=databases_pb2.Database(name="d", server_id=server.id))
    ).id


def test_new_user_has_the_defaults(user: User) -> None:
    """Settings are there with the user: light, English, notifications and saving on, nothing else."""
    settings = _get(user)
    assert settings == _get(user, "me") == _get(user, user.id)
    assert (settings.owner_id, settings.theme, settings.language) == (user.id, pb.THEME_LIGHT, "en")
    assert settings.notifications
    assert settings.auto_save
    assert not settings.HasField("default_database_id")
    assert not settings.preferences.fields


def test_settings_change_with_and_without_mask(user: User) -> None:
    """Populated fields are written, false among them, and a mask limits what is."""
    preferences = _struct({"page": {"size": 25, "dense": True}, "tags": ["a", None, 1.5]})
    changed = user.channel.users.UpdateUserSettings(
        _update(theme=pb.THEME_HIGH_CONTRAST, language="pt-BR", notifications=False, preferences=preferences)
    )
    assert (changed.theme, changed.language, changed.notifications) == (
        pb.THEME_HIGH_CONTRAST,
        "pt-BR",
        False,
    )
    assert changed.auto_save
    assert changed.preferences == preferences
    only = user.channel.users.UpdateUserSettings(_update("auto_save", auto_save=False, language="de"))
    assert (only.auto_save, only.language) == (False, "pt-BR")
    assert _get(user) == only


def test_masked_field_that_is_not_set_goes_back_to_its_default(user: User) -> None:
    """Clearing every field by the mask ``*`` gives the settings of a new user."""
    before = _get(user)
    user.channel.users.UpdateUserSettings(
        _update(
            theme=pb.THEME_DARK,
            language="de",
            notifications=False,
            auto_save=False,
            preferences=_struct({"a": 1}),
            default_database_id=_database_of(user),
        )
    )
    after = user.channel.users.UpdateUserSettings(_update("*"))
    for message in (before, after):
        message.ClearField("etag")
        message.ClearField("update_time")
    assert before == after


def test_default_database_is_the_users_own(service: Service, user: User) -> None:
    """The default database must be one of the user's; a foreign and a missing one answer alike."""
    own, foreign = _database_of(user), _database_of(service.new_user())
    changed = user.channel.users.UpdateUserSettings(_update(default_database_id=own))
    assert changed.default_database_id == own
    texts = set()
    for id in (foreign, "00000000-0000-7000-8000-000000000000"):
        with refused("NOT_FOUND", "RESOURCE_NOT_FOUND") as refusal:
            user.channel.users.UpdateUserSettings(_update(default_database_id=id))
        assert refusal.metadata == {"resource_type": "database", "resource_id": id}
        texts.add(refusal.message.replace(id, "ID"))
    assert len(texts) == 1
    with refused("NOT_FOUND"):
        service.admin.channel.users.UpdateUserSettings(_update(owner_id=user.id, default_database_id=foreign))
    assert _get(user).default_database_id == own


def test_deleted_database_is_nobodys_default(user: User) -> None:
    """Deleting the default database unsets it, which changes the settings' etag."""
    id = _database_of(user)
    etag = user.channel.users.UpdateUserSettings(_update(default_database_id=id)).etag
    user.channel.databases.DeleteDatabase(databases_pb2.DeleteDatabaseRequest(id=id))
    settings = _get(user)
    assert not settings.HasField("default_database_id")
    assert settings.etag != etag


def test_admin_changes_anybodys_settings(service: Service, user: User) -> None:
    """An ADMIN reads and changes another's settings; a USER finds none but the own."""
    changed = service.admin.channel.users.UpdateUserSettings(_update(owner_id=user.id, language="fr"))
    assert (changed.owner_id, changed.language) == (user.id, "fr")
    assert _get(user) == changed
    with refused("NOT_FOUND", "RESOURCE_NOT_FOUND"):
        service.new_user().channel.users.UpdateUserSettings(_update(owner_id=user.id, language="de"))


def test_etag_and_request_id_guard_settings(user: User) -> None:
    """An old etag is ABORTED; a repeated request id answers the settings as they now are."""
    request = _update(language="de")
    request.settings.etag = _get(user).etag
    request.request_id = "settings-once"
    first = user.channel.users.UpdateUserSettings(request)
    again, call = user.channel.users.UpdateUserSettings.with_call(request)
    assert again == first
    assert dict(call.trailing_metadata())["morag-replayed"] == "true"
    request.request_id = ""
    with refused("ABORTED", "ETAG_MISMATCH"):
        user.channel.users.UpdateUserSettings(request)


@pytest.mark.parametrize(
    ("fields", "violation"),
    [
        ({"language": "x" * 11}, "settings.language"),
        ({"language": "e n"}, "settings.language"),
        ({"theme": 99}, "settings.theme"),
        ({"default_database_id": "nonsense"}, "settings.default_database_id"),
        ({"owner_id": "nonsense"}, "settings.owner_id"),
        ({"preferences": _struct({"a": "x" * 16_384})}, "settings.preferences"),
        ({"preferences": _struct(_nested(17))}, "settings.preferences"),
        ({"preferences": _struct({"a": float("nan")})}, "settings.preferences"),
        ({"preferences": _struct({"a": "nul\x00"})}, "settings.preferences"),
    ],
)
def test_bad_settings_are_named(user: User, fields: dict[str, Any], violation: str) -> None:
    """A value beyond its limit is INVALID_ARGUMENT with the path of its field, and nothing is changed."""
    before = _get(user)
    with refused("INVALID_ARGUMENT", "INVALID_FIELD", violation):
        user.channel.users.UpdateUserSettings(_update(**fields))
    assert _get(user) == before


def test_deepest_allowed_preferences_are_kept(user: User) -> None:
    """Sixteen levels are taken and come back."""
    deep = _struct(_nested(16))
    assert user.channel.users.UpdateUserSettings(_update(preferences=deep)).preferences == deep


def test_mask_cannot_name_the_owner(user: User) -> None:
    """Settings stay whose they are."""
    with refused("INVALID_ARGUMENT", "INVALID_UPDATE_MASK", "update_mask"):
        user.channel.users.UpdateUserSettings(_update("owner_id", owner_id=user.id))
