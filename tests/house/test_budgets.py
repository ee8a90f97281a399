"""Sizes, names and words that keep the code readable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_FILE_LINES = 330  # about 300, and no reason to tear apart what is a few lines more
_FUNCTION_LINES = 40
_VAGUE = {"util", "utils", "helper", "helpers", "common", "manager", "base", "misc"}


def _sources() -> list[Path]:
    folders = ("morag_meta", "migrations", "tests", "examples", "benchmarks", "clients")
    return sorted(path for folder in folders for path in (_ROOT / folder).rglob("*.py"))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_have_one_subject() -> None:
    """No source file is much longer than 300 lines."""
    lengths = {str(path.relative_to(_ROOT)): len(path.read_text().splitlines()) for path in _sources()}
    assert {name: lines for name, lines in lengths.items() if lines > _FILE_LINES} == {}


def test_functions_fit_on_a_screen() -> None:
    """No function's body is longer than 40 lines."""
    long = [
        f"{path.relative_to(_ROOT)}:{function.lineno} {function.name}: {_body_lines(function)}"
        for path in _sources()
        for function in _functions(path)
        if _body_lines(function) > _FUNCTION_LINES
    ]
    assert long == []


def test_modules_are_named_after_what_they_hold() -> None:
    """No module has one of the names that fit anything."""
    assert [path for path in _sources() if path.stem in _VAGUE] == []


@pytest.mark.parametrize(
    "word", [r"mark\.skip", r"pytest\.skip", r"mark\.xfail", r"pytest\.xfail", r"importorskip"]
)
def test_no_test_is_left_out(word: str) -> None:
    """Every test that is collected runs; what cannot run here is not collected, and the last line says so."""
    tests = [path for path in (_ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert [path for path in tests if re.search(word, path.read_text())] == []


def test_every_test_states_its_fact_in_one_sentence() -> None:
    """A test's docstring begins with one whole sentence."""
    without = [
        f"{path.relative_to(_ROOT)}:{function.lineno} {function.name}"
        for path in (_ROOT / "tests").rglob("test_*.py")
        for function in _functions(path)
        if function.name.startswith("test_")
        and not (ast.get_docstring(function) or "").split("\n\n")[0].rstrip().endswith(".")
    ]
    assert without == []
