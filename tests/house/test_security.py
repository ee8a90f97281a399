"""What docs/security.md claims has a test behind it, and the linter's rules of security hold everywhere."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/security.md").read_text()
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_SECTIONS = [
    *(
        "Assets",
        "Actors",
        "Trust boundaries",
        "What is defended",
        "What is not defended",
        "How it is watched",
    ),
    "Reporting a weakness",
]


def _section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found.group(1)


def _claims() -> list[str]:
    """Give the rows of the tables of what is defended, without their heads."""
    rows = [line for line in _section("What is defended").splitlines() if line.startswith("|")]
    return [row for row in rows if not row.startswith(("| Claim", "|---"))]


def test_the_page_has_its_sections() -> None:
    """Assets, actors, boundaries, what is defended and what is not: each has its section, in this order."""
    assert re.findall(r"^## (.*)$", _PAGE, re.MULTILINE) == _SECTIONS
    assert all(len(_section(title).strip()) > 100 for title in _SECTIONS)


@pytest.mark.parametrize("claim", _claims(), ids=lambda claim: claim[2:50].strip())
def test_a_claim_of_defense_names_its_tests(claim: str) -> None:
    """Each claim of what is defended is followed by one test or more."""
    _, told, tests, _ = claim.split("|")
    assert told.strip()
    assert _TEST.findall(tests)
    assert _TEST.sub("", tests).strip() == ""


@pytest.mark.parametrize(("file", "name"), sorted(set(_TEST.findall(_PAGE))))
def test_a_named_test_exists(file: str, name: str) -> None:
    """A test that the page names is a function of its file."""
    tree = ast.parse((_ROOT / file).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions


def test_no_part_of_the_service_is_exempt_from_the_security_rules() -> None:
    """Ruff's rules of security are on, and only tests leave some of them out for whole files."""
    lint = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    left_out = {
        path: rules
        for path, codes in lint["per-file-ignores"].items()
        if (rules := [code for code in codes if re.fullmatch(r"S\d*|ALL", code)])
    }
    assert lint["select"] == ["ALL"]
    assert not [code for code in lint["ignore"] if re.fullmatch(r"S\d*", code)]
    assert set(left_out) == {"tests/**/*.py"}
