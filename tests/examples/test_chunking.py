"""The worker's rule of chunking, on texts of every kind."""

from __future__ import annotations

import importlib.util
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.examples.conftest import ROOT
from tests.examples.counting import true_chunks

_spec = importlib.util.spec_from_file_location("chunking", ROOT / "examples" / "chunking.py")
assert _spec is not None
assert _spec.loader is not None
chunking = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chunking)

# Lengths at the limits decide how paragraphs are packed, so texts are made of runs of such lengths.
_words = st.builds(
    lambda character, length: character * length,
    st.sampled_from("aß𝄞"),
    st.sampled_from([1, 2, 99, 100, 101, 448, 449, 450, 898, 899, 900, 901, 1000, 1800, 1801]),
)
_blanks = st.sampled_from(["\n", "\n\n", " \n", "\t", "\u2028", "\x0b"])
_texts = st.lists(_words, max_size=40).map("\n\n".join) | st.lists(_words | _blanks, max_size=40).map("".join)


@given(_texts)
def test_chunks_are_as_many_as_an_own_count_finds(text: str) -> None:
    """The number of chunks is that of a count written apart, whatever the text."""
    assert len(list(chunking.chunk(text))) == true_chunks(text)


@given(_texts)
def test_chunks_lose_nothing_and_overlap(text: str) -> None:
    """No chunk has over 1000 characters, each repeats the end of the one before, and all text is there."""
    chunks = list(chunking.chunk(text))
    assert all(len(chunk) <= 1000 for chunk in chunks)
    kept = chunks[:1]
    for _, after in pairwise(chunks):
        overlap = kept[-1][-100:]
        assert after.startswith(overlap)
        kept.append(after[len(overlap) :])
    assert "".join("".join(kept).split()) == "".join(text.split())


@given(st.text())
def test_quality_is_a_share(text: str) -> None:
    """The share of printable characters is from 0 to 1, and 1 for plain letters."""
    assert 0 <= chunking.printable_share(text) <= 1
    assert chunking.printable_share("a line\n") == 1
    assert chunking.printable_share("a\x01") == 0.5
