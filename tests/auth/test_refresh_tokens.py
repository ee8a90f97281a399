"""Refresh tokens by themselves: whose they are, what follows one, and what is none."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.refresh_tokens import RefreshTokens
from morag_meta.ids import new_id

_TOKENS = RefreshTokens(bytes(range(32)))
_ALPHABET = string.ascii_letters + string.digits + "-_"


def test_a_token_names_its_session_and_nothing_of_its_hash() -> None:
    """Each first token is new, names its session, and is kept as a hash that does not contain it."""
    session = new_id()
    first, other = _TOKENS.first(session), _TOKENS.first(session)
    assert first != other
    assert _TOKENS.session_of(first) == _TOKENS.session_of(other) == session
    assert len(first) == 86
    assert len(_TOKENS.digest(first)) == 61
    assert first not in _TOKENS.digest(first)
    with pytest.raises(ValueError, match="no refresh token"):
        RefreshTokens(bytes(32)).digest(first)


def test_a_token_has_one_successor_of_the_same_session() -> None:
    """Whoever asks twice is given the same successor, none of a chain is another, and the key decides it."""
    session = new_id()
    chain = [_TOKENS.first(session)]
    for _ in range(5):
        assert _TOKENS.successor(chain[-1]) == _TOKENS.successor(chain[-1])
        chain.append(_TOKENS.successor(chain[-1]))
    assert len(set(chain)) == len({_TOKENS.digest(token) for token in chain}) == 6
    assert {_TOKENS.session_of(token) for token in chain} == {session}


def test_a_token_of_another_key_is_none() -> None:
    """A token of another installation is not ours, and nothing follows it."""
    token = RefreshTokens(bytes(32)).first(new_id())
    assert _TOKENS.session_of(token) is None
    with pytest.raises(ValueError, match="no refresh token"):
        _TOKENS.successor(token)


@given(place=st.integers(0, 85), letter=st.sampled_from(_ALPHABET))
def test_a_token_with_one_other_letter_is_none(place: int, letter: str) -> None:
    """No letter can be changed, the last one with its idle bits included: a token has one spelling."""
    token = _TOKENS.first(new_id())
    changed = token[:place] + letter + token[place + 1 :]
    assert (_TOKENS.session_of(changed) is not None) == (changed == token)


@given(text=st.text(max_size=100) | st.text(_ALPHABET, min_size=86, max_size=86))
def test_any_text_is_read_and_is_none(text: str) -> None:
    """Whatever is sent is refused without an error."""
    assert _TOKENS.session_of(text) is None


@pytest.mark.parametrize("mark", ["=", "\n", " ", "*"])
def test_marks_within_a_token_make_it_none(mark: str) -> None:
    """Padding and letters that decoders skip are not forgiven."""
    token = _TOKENS.first(new_id())
    for changed in (token + mark, mark + token[1:], token[:40] + mark + token[41:], token[:-1] + mark):
        assert _TOKENS.session_of(changed) is None
