"""What holds for users: emails, names, that an ADMIN remains, and what a refresh token opens. Pure."""

from __future__ import annotations

import datetime as dt
import enum
import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from morag_meta import forms
from morag_meta.auth.principal import Principal, Role
from morag_meta.errors import Forbidden, Reason, Unauthenticated, WrongState, invalid

REPEAT: Final = dt.timedelta(seconds=30)
"""How long a refresh token is accepted once it was replaced: its client may have lost the answer."""

LONGEST_EMAIL: Final = 255
_SHORTEST_NAME: Final = 2
_LONGEST_NAME: Final = 255


def normalize_email(email: str) -> str:
    """Give the one form in which an email is kept and compared: trimmed, Unicode NFC, lower case.

    Lower case, not folded case: folding would make ``ss`` of ``ß``, which are two mailboxes. The part
    before the @ is lowered too, although RFC 5321 lets a host tell case apart there, as hardly any does.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email.strip()).lower())


def check_email(email: str, field: str) -> str:
    """Give the normalised form of an email that may be kept.

    Raises:
        Invalid: names ``field``: it is no address, or longer than 255 characters once normalised.
    """
    normal = normalize_email(email)
    if len(normal) > LONGEST_EMAIL:
        raise invalid(field, f"has more than {LONGEST_EMAIL} characters")
    if wrong := forms.email(normal):
        raise invalid(field, wrong)
    return normal


def check_name(name: str, field: str) -> str:
    """Give a user's name that may be kept; for callers whose input no proto rule has checked.

    Raises:
        Invalid: names ``field``: too short or long, or not in the form of a name.
    """
    if not _SHORTEST_NAME <= len(name) <= _LONGEST_NAME:
        raise invalid(field, f"has {_SHORTEST_NAME} to {_LONGEST_NAME} characters")
    if wrong := forms.name(name):
        raise invalid(field, wrong)
    return name


def check_email_change(caller: Principal, user_id: str) -> None:
    """Refuse to have an API key change its owner's email.

    To a new email a password reset is sent, and that opens a session: a key of few scopes, or one that is
    about to end, would become everything that its owner is.

    Raises:
        Forbidden: SESSION_REQUIRED.
    """
    if caller.key_id and caller.user_id == user_id:
        raise Forbidden(
            "to change one's own email, a session's access token is needed, not an API key",
            reason=Reason.SESSION_REQUIRED,
        )


def check_admin_remains(other_active_admins: int) -> None:
    """Refuse what would leave nobody to manage users.

    Raises:
        WrongState: LAST_ADMIN.
    """
    if other_active_admins == 0:
        raise WrongState(
            "the last active ADMIN cannot be demoted, deactivated or deleted", reason=Reason.LAST_ADMIN
        )


@dataclass(frozen=True, slots=True)
class Registration:
    """Whether anybody may register, and what who registers becomes."""

    enabled: bool = True
    role: Role = Role.USER

    def __post_init__(self) -> None:
        """Refuse what would make anybody an ADMIN.

        Raises:
            ValueError: who registers would become one.
        """
        if self.role is Role.ADMIN:
            raise ValueError("who registers never becomes an ADMIN")


class Refresh(enum.Enum):
    """What a genuine refresh token does to its session."""

    ROTATE = enum.auto()
    """It is the present one, and is replaced."""
    REPEAT = enum.auto()
    """It was replaced a moment ago: its client is given the same successor once more."""
    REUSED = enum.auto()
    """It was replaced before that, so two hold it, and nobody knows which of them rightly: all is over."""
    OVER = enum.auto()
    """The session has ended, and nothing changes that."""


def judge_refresh(session: Mapping[str, Any], refresh_hash: str, *, active: bool) -> Refresh:
    """Say what a genuine refresh token of this hash does to a session, of a user who is active or not.

    ``session`` is a row with its tokens' hashes and the database's ``clock``, by which all times are read.
    """
    now = session["clock"]
    if session["end_time"] is not None or session["expire_time"] <= now or not active:
        return Refresh.OVER
    if hmac.compare_digest(refresh_hash, session["refresh_hash"]):
        return Refresh.ROTATE
    is_previous = hmac.compare_digest(refresh_hash, session["previous_hash"] or "")
    if is_previous and now < session["rotate_time"] + REPEAT:
        return Refresh.REPEAT
    return Refresh.REUSED


def refresh_failed() -> Unauthenticated:
    """Say that a refresh token opens nothing, in the same words whatever the cause."""
    return Unauthenticated(
        "the refresh token is unknown or used, or its session is over", reason=Reason.REFRESH_TOKEN_INVALID
    )


def reset_failed() -> Unauthenticated:
    """Say that a token resets nothing, in the same words whatever the cause."""
    return Unauthenticated(
        "the token is unknown, used or replaced, or its time is over", reason=Reason.RESET_TOKEN_INVALID
    )


def login_failed() -> Unauthenticated:
    """Say that nobody logs in this way, in the same words whatever the cause."""
    return Unauthenticated("the email or the password is wrong", reason=Reason.LOGIN_FAILED)
