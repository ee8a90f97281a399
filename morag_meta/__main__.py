"""``python -m morag_meta``: the same as the command ``morag-meta``."""

from __future__ import annotations

from morag_meta.cli import main

if __name__ == "__main__":
    main()
