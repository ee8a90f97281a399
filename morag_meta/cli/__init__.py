"""The command line: one file per group of commands; each parses, calls and prints, and decides nothing."""

from __future__ import annotations


def main() -> None:
    """Run ``morag-meta`` and end the process with the command's exit code."""
    # Here, so that importing the package loads nothing.
    from morag_meta.cli.root import run  # noqa: PLC0415

    raise SystemExit(run())
