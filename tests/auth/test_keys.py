"""API keys as texts: their form, their hash, and what of them is shown."""

from __future__ import annotations

import base64
import hashlib
import hmac
import string

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.keys import PREFIX, KeyHasher, is_key, new_key, prefix_of

_SUBKEY = bytes(range(32))
_ALPHABET = string.ascii_letters + string.digits + "-_"
_BODIES = st.text(_ALPHABET, min_size=43, max_size=43)


def test_new_keys_have_the_form_and_differ() -> None:
    """A new key matches the documented pattern, and a thousand of them are a thousand different ones."""
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(is_key(key) and len(key) == 49 for key in keys)


@given(_BODIES)
def test_every_text_of_the_form_is_a_key(body: str) -> None:
    """The prefix and any 43 characters of base64url have a key's form."""
    assert is_key(PREFIX + body)


@given(_BODIES, st.integers(0, 48), st.characters(exclude_characters=_ALPHABET))
def test_a_foreign_character_makes_it_no_key(body: str, place: int, foreign: str) -> None:
    """No character outside the alphabet may stand anywhere in a key, line ends and other digits included."""
    key = PREFIX + body
    assert not is_key(key[:place] + foreign + key[place + 1 :])
    assert not is_key(key + foreign)


@given(st.text())
def test_any_text_has_a_hash_and_only_keys_have_the_form(text: str) -> None:
    """Hashing takes whatever a header may hold, and a random text is not mistaken for a key."""
    assert len(KeyHasher(_SUBKEY).digest(text)) == 61
    assert is_key(text) == (
        text.isascii()
        and text.startswith("morag_")
        and len(text) == 49
        and all(character in _ALPHABET for character in text[6:])
    )


@pytest.mark.parametrize(
    "text", ["", "morag_", "morag_" + "a" * 42, "morag_" + "a" * 44, "MORAG_" + "a" * 43, "mk_" + "a" * 43]
)
def test_other_lengths_and_prefixes_are_no_keys(text: str) -> None:
    """A key has exactly its prefix and 43 more characters."""
    assert not is_key(text)


def test_digest_is_sha256_under_aes_siv() -> None:
    """The stored hash is SHA-256 of the whole key under AES-SIV, behind its key's name."""
    key = new_key()
    cipher = AESSIV(hmac.new(_SUBKEY, b"hash", hashlib.sha512).digest())
    name = hmac.new(_SUBKEY, b"generation", hashlib.sha256).hexdigest()[:6]
    sealed = cipher.encrypt(hashlib.sha256(key.encode()).digest()[:24], None)
    assert (
        KeyHasher(_SUBKEY).digest(key) == f"{name}.{base64.urlsafe_b64encode(sealed).rstrip(b'=').decode()}"
    )
    assert KeyHasher(bytes(32)).digest(key) != KeyHasher(_SUBKEY).digest(key)


def test_a_hash_is_renewed_by_who_has_both_keys() -> None:
    """A hash of the key before is made into that of the next without the key that was hashed, and back."""
    key, old, new = new_key(), bytes(32), _SUBKEY
    forth, back = KeyHasher(lambda: (new, old)), KeyHasher(lambda: (old, new))
    before, after = KeyHasher(old).digest(key), KeyHasher(new).digest(key)
    assert forth.digests(key) == (after, before)
    assert (forth.renewed(before), forth.renewed(after), back.renewed(after)) == (after, after, before)
    assert KeyHasher(new).renewed(before) is None
    assert forth.renewed(before[:-3] + ("AAA" if before[-3:] != "AAA" else "BAA")) is None
    assert forth.generations == (after[:6], before[:6])


def test_shown_prefix_is_twelve_characters() -> None:
    """What is shown of a key is its first 12 characters, which leave 220 bits to guess."""
    key = new_key()
    assert prefix_of(key) == key[:12]


def test_short_hashing_key_is_refused() -> None:
    """A hasher does not start with a key that could be guessed."""
    with pytest.raises(ValueError, match="32 bytes"):
        KeyHasher(b"short")
