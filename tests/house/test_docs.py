"""What the README and docs/ say is so: links, commands, code, and the references that are written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from morag_meta.db.database import Database
from morag_meta.errors import Reason
from moragmeta.v1 import jobs_pb2
from moragmeta.v1.jobs_pb2_grpc import JobServiceStub
from tests.service import SECRET_KEY, Service, User

_ROOT = Path(__file__).parents[2]
_PAGES = [_ROOT / "README.md", *sorted(_ROOT.glob("*/*.md")), *sorted(_ROOT.glob("clients/*/*.md"))]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link names a file that exists, and an anchor a heading in it."""
    broken = []
    for link in _LINK.findall(page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            broken.append(link)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            if anchor not in map(_anchor, headings):
                broken.append(link)

    assert broken == []


def test_the_readme_names_every_folder_and_no_other() -> None:
    """Each folder of the repository stands in the README's tree, and each one named there exists."""
    tree = re.search(r"## The house\n\n(.*?)\n\n\*\*", (_ROOT / "README.md").read_text(), re.DOTALL)
    assert tree is not None
    named = set(re.findall(r"(?<![\w/])(\w+)/(?=[\s]|$)", tree.group(1), re.MULTILINE))
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=_ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    tops = {name.split("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    inner = {name.split("/")[1] for name in tracked if name.startswith("morag_meta/") and name.count("/") > 1}

    assert tops | inner <= named
    assert all((_ROOT / name).is_dir() or name in inner or name == "house" for name in named)


def test_the_make_commands_of_the_docs_exist() -> None:
    """Every `make …` that a page tells people to run is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (_ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {
        command
        for page in _PAGES
        for command in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }

    assert told <= targets
    assert {"serve", "test"} <= told


def test_the_files_that_commands_name_exist() -> None:
    """A README command that runs a script of the repository names one that is there."""
    scripts = re.findall(r"\.venv/bin/python (\S+\.py)", (_ROOT / "README.md").read_text())
    assert scripts
    assert all((_ROOT / script).is_file() for script in scripts)


def test_the_readme_fetches_what_serving_does_not_bring_before_it_runs_it() -> None:
    """A tool of the development set stands in the README only after the command that installs it."""
    readme = (_ROOT / "README.md").read_text()
    buf = {set_: "\nbuf" in (_ROOT / f"requirements/{set_}.txt").read_text() for set_ in ("runtime", "dev")}

    assert buf == {"runtime": False, "dev": True}
    assert 0 < readme.index("\nmake setup") < readme.index("\n.venv/bin/buf ")


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_python_in_the_docs_compiles(page: Path) -> None:
    """Each block of Python in a page is Python."""
    for number, block in enumerate(_blocks(page, "python")):
        compile(block, f"{page.name} block {number}", "exec")


def test_the_embedding_example_runs(database_url: str) -> None:
    """The in-process API makes a user, a key and a document without a server, as docs/embedding.md shows."""
    names: dict[str, object] = {}
    exec(_blocks(_ROOT / "docs/embedding.md", "python")[0], names)  # noqa: S102 - our own page
    fill = names["fill"]
    assert callable(fill)
    key, document_id = fill(database_url, SECRET_KEY)
    database = Database.open(database_url)
    with database.unit_of_work() as uow:
        document = uow.documents.get("-", document_id)
        keys = uow.api_keys.page(document["owner_id"], None, 10, show_revoked=False)
    database.close()

    assert document["name"] == "notes.md"
    assert key.startswith(keys[0]["key_prefix"])


def test_the_streams_example_runs(service: Service, user: User) -> None:
    """The loop of docs/streams.md, given a plain stub and a key, gives every event of a job to its end."""
    names: dict[str, Any] = {}
    exec(_blocks(_ROOT / "docs/streams.md", "python")[0], names)  # noqa: S102 - our own page
    job = user.channel.jobs.CreateJob(jobs_pb2.CreateJobRequest(job=jobs_pb2.Job(kind="REPORT")))
    user.channel.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=job.id))
    with grpc.insecure_channel(service.target) as channel:
        events = list(names["follow"](JobServiceStub(channel), job.id, user.key))

    assert [event.sequence for event in events] == [1, 2]
    assert events[-1].state == jobs_pb2.JOB_STATE_CANCELLED


@pytest.mark.parametrize("script", ["api", "configuration"])
def test_written_references_are_current(script: str) -> None:
    """docs/api.md and docs/configuration.md are what `make docs` writes."""
    run = subprocess.run(
        [sys.executable, str(_ROOT / "docs" / f"{script}.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_reasons_that_pages_name_exist() -> None:
    """Every reason in capitals in docs/streams.md and docs/errors.md is one of the catalogue."""
    words = {
        word
        for name in ("streams", "errors")
        for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", (_ROOT / "docs" / f"{name}.md").read_text())
    }
    codes = {"NOT_FOUND", "OUT_OF_RANGE", "PERMISSION_DENIED", "INVALID_ARGUMENT", "ALREADY_EXISTS"}
    codes |= {"FAILED_PRECONDITION", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "EXISTING_ID"}
    settings = {word for word in words if word.startswith("MORAG_")}

    assert words - codes - settings <= {reason.value for reason in Reason}
