"""What holds for users, without a database: the one form of an email, names, and who must remain."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.errors import Invalid, Reason, WrongState
from morag_meta.users.rules import check_admin_remains, check_email, check_name, login_failed, normalize_email

_TEXTS = st.text(max_size=60)


@given(_TEXTS)
def test_normal_form_is_stable(text: str) -> None:
    """Normalising what is normal changes nothing, so a stored email is found by itself."""
    assert normalize_email(normalize_email(text)) == normalize_email(text)


@given(_TEXTS)
def test_spellings_of_one_email_meet(text: str) -> None:
    """Composed or decomposed, with white space around or none: one email has one normal form."""
    normal = normalize_email(text)
    assert normalize_email(unicodedata.normalize("NFD", text)) == normal
    assert normalize_email(unicodedata.normalize("NFC", text)) == normal
    assert normalize_email(f"  {text}\t\n") == normal


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_case_does_not_count(text: str) -> None:
    """Upper and lower case of ASCII letters are one."""
    assert normalize_email(text.upper()) == normalize_email(text.lower())


def test_different_mailboxes_stay_different() -> None:
    """Lowering is not folding: ``ß`` and ``ss`` are two letters, and so are ``i`` with and without dot."""
    assert normalize_email("Straße@x.org") != normalize_email("strasse@x.org")
    assert normalize_email("ILI@x.org") != normalize_email("\u0131l\u0131@x.org")
    assert normalize_email("ÄRA@X.org") == "ära@x.org"


@pytest.mark.parametrize("email", ["", "nobody", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\x00", "a@b\u2028c"])
def test_what_is_no_address_is_refused(email: str) -> None:
    """An address has one @ with something on either side, and neither white space nor controls."""
    with pytest.raises(Invalid) as caught:
        check_email(email, "user.email")
    assert [violation.field for violation in caught.value.violations] == ["user.email"]


def test_email_is_measured_in_its_normal_form() -> None:
    """An email that grows beyond 255 characters by normalising is refused before the database would."""
    assert check_email("a" * 249 + "@b.org", "email")
    with pytest.raises(Invalid):
        check_email("İ" * 125 + "@" + "b" * 6, "email")


@pytest.mark.parametrize("name", ["", "x", "x" * 256, "  ", "line\nbreak", "nul\x00"])
def test_names_are_checked_below_the_wire_too(name: str) -> None:
    """A name from the command line keeps the limits that the proto states."""
    with pytest.raises(Invalid):
        check_name(name, "name")
    assert check_name("Zoë Ångström", "name") == "Zoë Ångström"


def test_somebody_must_remain() -> None:
    """With no other active ADMIN the change is refused; with one it is not."""
    check_admin_remains(1)
    with pytest.raises(WrongState) as caught:
        check_admin_remains(0)
    assert caught.value.reason == Reason.LAST_ADMIN


def test_failed_login_says_one_thing() -> None:
    """The error of a failed log-in names neither the email nor which part was wrong."""
    assert login_failed().reason == Reason.LOGIN_FAILED
    assert "or" in login_failed().message
