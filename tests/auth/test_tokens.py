"""Access tokens: what they say, and everything that makes one worthless."""

from __future__ import annotations

import base64
import datetime as dt
import json
import string
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.principal import Role
from morag_meta.auth.tokens import ACCESS_LIFE, Tokens, is_access_token
from morag_meta.errors import Reason, Unauthenticated

_KEY, _REFRESH_KEY = bytes(range(64)), bytes(range(100, 132))
_TOKENS = Tokens(_KEY, _REFRESH_KEY)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _issue(tokens: Tokens = _TOKENS, life: float = 3600) -> str:
    now = _now()
    end = now + dt.timedelta(seconds=life)
    return tokens.issue("user", "session", Role.USER, now=now, session_end=end)[0]


def _claims(**changes: Any) -> dict[str, Any]:
    now = int(_now().timestamp())
    claims = {"iss": "morag-meta", "aud": "morag-meta", "sub": "u", "sid": "s", "role": "USER", "jti": "j"}
    return {**claims, "iat": now, "exp": now + 60, **changes}


def _refuse(token: str, tokens: Tokens = _TOKENS) -> None:
    with pytest.raises(Unauthenticated) as caught:
        tokens.verify(token)
    assert caught.value.reason == Reason.CREDENTIAL_INVALID


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_genuine_token_says_whose_it_is(algorithm: str) -> None:
    """A token read back names its user, its session and its end, with each of the three algorithms."""
    tokens = Tokens(_KEY, _REFRESH_KEY, algorithm=algorithm)
    token = _issue(tokens)
    claims = tokens.verify(token)
    assert (claims.user_id, claims.session_id) == ("user", "session")
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert is_access_token(token)


def test_token_lives_fifteen_minutes_and_never_beyond_its_session() -> None:
    """A token ends after 15 minutes, or with a session that ends before."""
    now = _now()
    _, end = _TOKENS.issue("u", "s", Role.USER, now=now, session_end=now + dt.timedelta(days=1))
    assert dt.timedelta(0) <= now + ACCESS_LIFE - end < dt.timedelta(seconds=1)
    assert dt.timedelta(minutes=15) == ACCESS_LIFE
    near = now + dt.timedelta(minutes=2)
    _, end = _TOKENS.issue("u", "s", Role.USER, now=now, session_end=near)
    assert end == near.replace(microsecond=0)


def test_expired_token_is_refused() -> None:
    """A token is worthless from the second at which it ends."""
    _refuse(_issue(life=0))


def test_another_algorithm_is_refused() -> None:
    """A token signed with the right key and another algorithm is refused, and so is an unsigned one."""
    _refuse(_issue(Tokens(_KEY, _REFRESH_KEY, algorithm="HS512")))
    unsigned = jwt.encode(_claims(), "", algorithm="none")
    _refuse(unsigned)


def test_another_key_is_refused() -> None:
    """A token of another installation is refused."""
    _refuse(_issue(Tokens(bytes(64), _REFRESH_KEY)))


@pytest.mark.parametrize("missing", ["sub", "sid", "role", "iat", "exp", "jti", "iss", "aud"])
def test_missing_claim_is_refused(missing: str) -> None:
    """A signed token that leaves out any of its claims is refused."""
    claims = _claims()
    del claims[missing]
    _refuse(jwt.encode(claims, _KEY, "HS256"))


@pytest.mark.parametrize(
    "changes", [{"iss": "other"}, {"aud": "other"}, {"exp": "soon"}, {"sub": 7}, {"exp": 10**20}]
)
def test_foreign_claims_are_refused(changes: dict[str, Any]) -> None:
    """A signed token for another service, or with claims of another type, is refused."""
    _refuse(jwt.encode(_claims(**changes), _KEY, "HS256"))


def test_rewritten_claims_are_refused() -> None:
    """Claims that were changed under the old signature are refused."""
    header, body, signature = _issue().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["role"] = "ADMIN"
    rewritten = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    _refuse(f"{header}.{rewritten}.{signature}")


@given(
    st.text(max_size=200)
    | st.from_regex(r"[A-Za-z0-9_=-]*\.[A-Za-z0-9_=-]*\.[A-Za-z0-9_=-]*", fullmatch=True)
)
def test_no_text_but_ours_is_a_token(text: str) -> None:
    """Whatever text is sent as a token, it is refused in the one way."""
    _refuse(text)


@given(st.integers(0, 10_000), st.integers(1, 61))
def test_one_changed_character_is_refused(place: int, shift: int) -> None:
    """A token with any one character of it changed to another is refused."""
    token = _issue()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place %= len(token)
    if token[place] == "." or place == len(token) - 1:  # its last character has bits that say nothing
        return
    other = alphabet[(alphabet.index(token[place]) + shift) % 64]
    _refuse(token[:place] + other + token[place + 1 :])


def test_unknown_algorithm_is_refused_at_start() -> None:
    """Only the three HMAC algorithms can be configured."""
    with pytest.raises(ValueError, match="HS256"):
        Tokens(_KEY, _REFRESH_KEY, algorithm="RS256")


def test_a_token_has_one_spelling() -> None:
    """Padding, another last character with the same bits, or white space makes another, refused token."""
    token = _issue()
    assert is_access_token(token)
    head, last = token[:-1], token[-1]
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    same_bits = [head + alphabet[alphabet.index(last) ^ bit] for bit in (1, 2, 3)]

    assert not [text for text in (token + "=", token + " ", " " + token, *same_bits) if is_access_token(text)]
