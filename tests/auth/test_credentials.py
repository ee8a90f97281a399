"""The key ring of stored credentials: what it seals, what it refuses to open, and where it comes from."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_meta.auth.credentials import VARIABLE, CredentialRing, UnreadableCredentialError
from morag_meta.auth.secret_files import read_ring
from morag_meta.config.error import ConfigurationError

KEY = os.urandom(32)
OTHER = os.urandom(48)


@pytest.fixture
def ring() -> CredentialRing:
    """A ring of one key."""
    return CredentialRing({"k1": KEY}, "k1")


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _flipped(sealed: str, place: int) -> str:
    head, encoded = sealed.rsplit(".", 1)
    raw = bytearray(base64.b64decode(encoded))
    raw[place] ^= 1
    return f"{head}.{base64.b64encode(bytes(raw)).decode()}"


@given(text=st.text(st.characters(exclude_categories=["Cs"])), context=st.text(max_size=40))
def test_a_sealed_text_opens_for_its_own_context(text: str, context: str) -> None:
    """Whatever was sealed comes back unchanged."""
    ring = CredentialRing({"k1": KEY}, "k1")
    context = context.encode("utf-8", "ignore").decode()
    assert ring.open_(ring.seal(text, context=context), context=context) == text


def test_the_sealed_form_names_version_and_key_and_hides_the_text(ring: CredentialRing) -> None:
    """The form is v1.<key id>.<base64>, and the text stands nowhere in it."""
    sealed = ring.seal("hunter2-hunter2", context="c")
    version, key_id, encoded = sealed.split(".")
    assert (version, key_id) == ("v1", "k1")
    assert b"hunter2" not in base64.b64decode(encoded, validate=True)


def test_the_same_text_is_sealed_differently_each_time(ring: CredentialRing) -> None:
    """Equal passwords cannot be told from their sealed forms."""
    assert ring.seal("same", context="c") != ring.seal("same", context="c")


def test_a_sealed_text_does_not_open_in_another_place(ring: CredentialRing) -> None:
    """A sealed password copied to another server or field is refused."""
    with pytest.raises(UnreadableCredentialError, match="another place"):
        ring.open_(ring.seal("text", context="servers/a/password"), context="servers/b/password")


@pytest.mark.parametrize("place", [0, 11, 12, -1])
def test_a_changed_byte_is_noticed(ring: CredentialRing, place: int) -> None:
    """Nonce, ciphertext and tag are all authenticated."""
    with pytest.raises(UnreadableCredentialError):
        ring.open_(_flipped(ring.seal("text", context="c"), place), context="c")


@pytest.mark.parametrize(
    "sealed", ["", "text", "v2.k1.AAAA", "v1.k1.", "v1.k1.AAAA", "v1.k1.not base64", "v1.none.AAAA"]
)
def test_what_is_no_sealed_text_is_refused(ring: CredentialRing, sealed: str) -> None:
    """Garbage raises the one error that says so."""
    with pytest.raises(UnreadableCredentialError):
        ring.open_(sealed, context="c")


def test_a_renamed_key_does_not_open_what_it_sealed_under_another_id() -> None:
    """The key id is bound to the ciphertext, so it cannot be rewritten."""
    sealed = CredentialRing({"k1": KEY}, "k1").seal("text", context="c")
    with pytest.raises(UnreadableCredentialError):
        CredentialRing({"k2": KEY}, "k2").open_(sealed.replace("v1.k1.", "v1.k2."), context="c")


def test_an_old_key_still_opens_and_the_active_one_seals() -> None:
    """Rotation: put a new key first, keep the old one, and both generations can be read."""
    old = CredentialRing.parse(f"k1:{_text(KEY)}")
    new = CredentialRing.parse(f"k2:{_text(OTHER)},k1:{_text(KEY)}")
    assert new.open_(old.seal("text", context="c"), context="c") == "text"
    assert new.seal("text", context="c").startswith("v1.k2.")
    assert new.active == "k2"


def test_a_ring_shows_its_key_ids_and_no_key() -> None:
    """Printing a ring leaks nothing."""
    shown = repr(CredentialRing({"k1": KEY}, "k1"))
    assert "k1" in shown
    assert _text(KEY) not in shown
    assert repr(KEY) not in shown


def test_a_ring_needs_its_active_key_and_usable_keys() -> None:
    """A ring that could not seal is never made."""
    with pytest.raises(ValueError, match="active"):
        CredentialRing({"k1": KEY}, "k2")
    with pytest.raises(ValueError, match="32 random bytes"):
        CredentialRing({"k1": KEY[:31]}, "k1")


@pytest.mark.parametrize("form", ["padded", "bare", "url"])
def test_keys_are_read_in_either_alphabet_with_or_without_padding(form: str) -> None:
    """What openssl and Python print is accepted as it is."""
    key = bytes(range(250, 256)) * 4 + bytes(range(16))
    encoded = base64.urlsafe_b64encode(key).decode() if form == "url" else _text(key)
    ring = CredentialRing.parse(f" k1:{encoded.rstrip('=') if form == 'bare' else encoded} ")
    assert CredentialRing({"k1": key}, "k1").open_(ring.seal("t", context="c"), context="c") == "t"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "key 1 is not <id>:<base64 key>"),
        (_text(KEY), "key 1 is not <id>:<base64 key>"),
        (f"k1:{_text(KEY[:31])}", "key 1 is not the base64 of at least 32 random bytes"),
        ("k1:*not-base64*", "key 1 is not the base64 of at least 32 random bytes"),
        (f"k1:{_text(KEY)},k1:{_text(OTHER)}", "key 2 has the id of another one"),
        (f"a.b:{_text(KEY)}", "key 1 has an id"),
        (f"k1:{_text(KEY)},", "key 2 is not <id>:<base64 key>"),
        (f"k1:{_text(bytes(32))}", "key 1 is not random"),
        ("k1:" + "changeme" * 8, "key 1 is not random"),
    ],
    ids=["empty", "no id", "short", "no base64", "id twice", "bad id", "trailing comma", "zeros", "repeated"],
)
def test_a_bad_variable_is_told_by_its_name_and_the_fix(text: str, problem: str) -> None:
    """The error names the variable, which key is wrong and how to make one, and shows no key."""
    with pytest.raises(ConfigurationError) as caught:
        CredentialRing.parse(text)
    message = str(caught.value)
    assert message.startswith(f"{VARIABLE}: {problem}")
    assert "openssl rand" in message
    assert not any(part in message for part in (_text(KEY), _text(OTHER), "changeme"))


def _load_or_create(path: Path) -> CredentialRing:
    """Read or make a file, and give the ring in it."""
    return read_ring(path, create=True).ring


def test_the_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """The first start makes a ring of mode 0600, the second reads the same one, and nothing else is left."""
    path = tmp_path / "meta.credentials.json"
    sealed = _load_or_create(path).seal("text", context="c")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert _load_or_create(path).open_(sealed, context="c") == "text"
    assert list(tmp_path.iterdir()) == [path]


def test_every_new_file_has_a_key_id_of_its_own(tmp_path: Path) -> None:
    """What a lost ring sealed is recognized as such, not taken for damaged."""
    sealed = _load_or_create(tmp_path / "a").seal("text", context="c")
    with pytest.raises(UnreadableCredentialError, match="not in the ring"):
        _load_or_create(tmp_path / "b").open_(sealed, context="c")


def test_starters_at_once_share_one_ring(tmp_path: Path) -> None:
    """Eight that start together use the same keys, whoever made the file, again and again."""
    start = threading.Barrier(8)

    def seal(path: Path) -> str:
        start.wait()
        return _load_or_create(path).seal("text", context="c")

    with ThreadPoolExecutor(8) as pool:
        for number in range(25):
            path = tmp_path / str(number)
            sealed = list(pool.map(seal, [path] * 8))
            ring = _load_or_create(path)
            assert [ring.open_(text, context="c") for text in sealed] == ["text"] * 8


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """Loose permissions stop the start with the command that fixes them."""
    path = tmp_path / "ring"
    _load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        _load_or_create(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"active": "k1", "keys": {}}',
        '{"active": "k1", "keys": []}',
        '{"active": "k1", "keys": {"k1": 5}}',
    ],
)
def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    """A broken ring is never replaced by a new one, which would lose what the old one sealed."""
    path = tmp_path / "ring"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="damaged"):
        _load_or_create(path)
    assert path.read_text() == content


def test_a_file_with_a_short_key_is_refused(tmp_path: Path) -> None:
    """The rules of a key hold for the file too."""
    path = tmp_path / "ring"
    path.write_text(json.dumps({"active": "k1", "keys": {"k1": _text(KEY[:8])}}))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="damaged"):
        _load_or_create(path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(ConfigurationError, match=r"ring cannot be read or made: No such file"):
        _load_or_create(tmp_path / "missing" / "ring")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are refused as such."""
    path = tmp_path / "ring"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="it is not text"):
        _load_or_create(path)
