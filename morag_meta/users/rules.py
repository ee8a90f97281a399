"""What holds for users: how an email is normalised, what a name is, and that an ADMIN remains. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

from morag_meta import forms
from morag_meta.errors import Reason, Unauthenticated, WrongState, invalid

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


def check_admin_remains(other_active_admins: int) -> None:
    """Refuse what would leave nobody to manage users.

    Raises:
        WrongState: LAST_ADMIN.
    """
    if other_active_admins == 0:
        raise WrongState(
            "the last active ADMIN cannot be demoted, deactivated or deleted", reason=Reason.LAST_ADMIN
        )


def login_failed() -> Unauthenticated:
    """Say that nobody logs in this way, in the same words whatever the cause."""
    return Unauthenticated("the email or the password is wrong", reason=Reason.LOGIN_FAILED)
