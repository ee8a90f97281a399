"""Users, sessions and settings between rows and messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from morag_meta.auth.principal import Role
from morag_meta.db.unit import Row
from morag_meta.rpc.etags import etag_of
from morag_meta.rpc.structs import json_to_struct, struct_to_json
from morag_meta.rpc.times import to_timestamp
from morag_meta.users.password_resets import Reset
from morag_meta.users.rules import check_email
from morag_meta.users.store import DEFAULT_SETTINGS
from moragmeta.v1 import options_pb2
from moragmeta.v1 import users_pb2 as pb

PREFERENCES_BYTES: Final = 16_384
_THEME: Final = "THEME_"


def user_to_proto(row: Row) -> pb.User:
    """Give a user's message; the password's hash stays behind."""
    return pb.User(
        id=row["id"],
        etag=etag_of(row),
        create_time=to_timestamp(row["create_time"]),
        update_time=to_timestamp(row["update_time"]),
        name=row["name"],
        email=row["email"],
        avatar=row["avatar"],
        role=options_pb2.Role.ValueType(Role[row["role"]]),
        active=row["active"],
        password_set=row["password_hash"] is not None,
    )


def user_from_proto(user: pb.User, names: Iterable[str]) -> dict[str, Any]:
    """Give the values of the named fields; an avatar that is not set is None.

    Raises:
        Invalid: the email is none.
    """
    values: dict[str, Any] = {name: getattr(user, name) for name in names}
    if "avatar" in values:
        values["avatar"] = user.avatar or None
    if "email" in values:
        values["email"] = check_email(user.email, "user.email")
    return values


def role_name(role: options_pb2.Role.ValueType) -> str:
    """Give a role's name, as rows hold it; empty for no role."""
    return Role(role).name if role else ""


def session_to_proto(row: Row, current_id: str) -> pb.Session:
    """Give a session's message, for a caller in the session ``current_id`` or, when empty, in none."""
    return pb.Session(
        id=row["id"],
        owner_id=row["owner_id"],
        create_time=to_timestamp(row["create_time"]),
        last_used_time=to_timestamp(row["refresh_time"]),
        expire_time=to_timestamp(row["expire_time"]),
        address=row["address"],
        user_agent=row["user_agent"],
        current=row["id"] == current_id,
    )


def reset_to_proto(reset: Reset) -> pb.PasswordReset:
    """Give the message of a token that was just given out."""
    return pb.PasswordReset(
        user_id=reset.user["id"],
        email=reset.user["email"],
        name=reset.user["name"],
        token=reset.token,
        expire_time=to_timestamp(reset.expire_time),
    )


def settings_to_proto(row: Row) -> pb.UserSettings:
    """Give the message of a user's settings."""
    return pb.UserSettings(
        owner_id=row["owner_id"],
        etag=etag_of(row),
        create_time=to_timestamp(row["create_time"]),
        update_time=to_timestamp(row["update_time"]),
        theme=pb.Theme.Value(_THEME + row["theme"]),
        language=row["language"],
        notifications=row["notifications"],
        auto_save=row["auto_save"],
        default_database_id=row["default_database_id"],
        preferences=json_to_struct(row["preferences"]),
    )


def settings_from_proto(settings: pb.UserSettings, names: Iterable[str]) -> dict[str, Any]:
    """Give the values of the named fields; one that is not set goes back to its default.

    Raises:
        Invalid: the preferences are too large or too deep, or hold what JSON cannot.
    """
    return {name: _setting(settings, name) for name in names}


def _setting(settings: pb.UserSettings, name: str) -> Any:
    if name not in {field.name for field, _ in settings.ListFields()}:
        return DEFAULT_SETTINGS[name]
    if name == "theme":
        return pb.Theme.Name(settings.theme).removeprefix(_THEME)
    if name == "preferences":
        return struct_to_json(settings.preferences, "settings.preferences", max_bytes=PREFERENCES_BYTES)
    if name == "default_database_id":
        return settings.default_database_id or None  # an empty text is no id, and means none
    return getattr(settings, name)
