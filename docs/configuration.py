"""Writes ``docs/configuration.md`` from the settings and the exit codes as they are declared.

Run by ``make docs``; a test compares what it would write with what is there.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from morag_meta import exits
from morag_meta.config.setting import PREFIX
from morag_meta.config.settings import Settings
from morag_meta.config.variables import CLIENT_VARIABLES

TARGET = Path(__file__).with_suffix(".md")

_HEAD = """# Configuration

Written by `make docs`; do not edit.

Every setting is an environment variable, or a line of a `.env` file in the working folder; the environment wins, and an option of the command line wins over both.
A value that is not accepted ends the start with one line that names the variable, the value unless it is a secret, and what to write.
A variable that is set to nothing counts as not set: with `MORAG_DATABASE_URL=` what `.env` says holds, else the default.
A `MORAG_` variable that is no setting is warned of.

Commands are written as `morag-meta`; in a checkout that is `.venv/bin/morag-meta`, or activate the environment once with `. .venv/bin/activate`."""

_CLIENTS = """## Calling a server

`morag-meta jobs`, `morag-meta health` and the programs in `examples/` read these."""

_SECRETS = """## Secrets

On SQLite, `MORAG_SECRET_KEY` and `MORAG_CREDENTIAL_KEYS` are made at the first start, in files beside the database that only their owner may read.
So is the database's own file; one that is there already keeps its mode.
A database that holds keys or sealed credentials and has lost these files refuses to start, rather than void them with new ones.
With any other database a missing one refuses to start, and so do known example values.
Secrets that read none of the API keys, or none of the sealed credentials, that a database holds refuse to start with `serve`, unless it is told `--accept-lost-secrets`; where they read some, a warning in the log names what made the others.
Give every process of one installation the same secrets. They are changed while the service runs: [secrets](secrets.md).

## Database URLs

`sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user:password@host/name` and `mariadb://user:password@host/name` (or `mysql://`) reach the right driver by themselves.
The drivers come with the extras `morag-meta[postgresql]`, `morag-meta[mysql]` or `morag-meta[all-databases]`.
Units of work of one process use at most `MORAG_DATABASE_POOL_SIZE` + `MORAG_DATABASE_MAX_OVERFLOW` connections, and as many threads; beside them the health probe has one, and on PostgreSQL the notices another."""


def _default(name: str) -> str:
    value = Settings.model_fields[name].default
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _settings() -> Iterator[str]:
    yield "| variable | default | accepts | |"
    yield "|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        accepts = str(extra["accepts"]) if isinstance(extra, dict) else ""
        text = accepts.replace("<", "&lt;").replace("|", "\\|")
        yield f"| `{PREFIX}{name.upper()}` | {_default(name)} | {text} | {field.description} |"


def _clients() -> Iterator[str]:
    yield "| variable | |"
    yield "|---|---|"
    for name, what in CLIENT_VARIABLES.items():
        yield f"| `{name}` | {what} |"


def _exit_codes() -> Iterator[str]:
    yield "| code | name | |"
    yield "|---|---|---|"
    body = ast.parse(inspect.getsource(exits.ExitCode)).body[0]
    if isinstance(body, ast.ClassDef):
        for member, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(member, ast.Assign) and isinstance(text, ast.Expr):
                name = ast.unparse(member.targets[0])
                yield f"| {exits.ExitCode[name].value} | {name} | {ast.literal_eval(text.value)} |"


def render() -> str:
    """Give the whole page."""
    settings, clients, codes = map("\n".join, (_settings(), _clients(), _exit_codes()))
    return (
        f"{_HEAD}\n\n## Settings\n\n{settings}\n\n{_CLIENTS}\n\n{clients}\n\n{_SECRETS}\n\n"
        f"## Exit codes\n\n{codes}\n"
    )


if __name__ == "__main__":
    if "--check" in sys.argv:
        raise SystemExit(
            None if TARGET.read_text() == render() else "docs/configuration.md is not current: make docs"
        )
    TARGET.write_text(render())
