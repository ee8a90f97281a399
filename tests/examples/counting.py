"""How many chunks a text has by the rule that examples/chunking.py states: written apart from it."""

from __future__ import annotations

from itertools import groupby


def true_chunks(text: str) -> int:
    """Count from the lengths of paragraphs alone."""
    pieces: list[int] = []
    for blank, run in groupby(text.split("\n"), key=lambda line: not line.strip()):
        if not blank:
            whole, rest = divmod(len("\n".join(run).strip()), 900)
            pieces += [900] * whole + [rest] * bool(rest)
    chunks, used = 0, 900
    for piece in pieces:
        if used + 2 + piece <= 900:
            used += 2 + piece
        else:
            chunks, used = chunks + 1, piece
    return chunks
