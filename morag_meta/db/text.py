"""Text filters that mean the same on every database.

LIKE ignores the case of ASCII letters on SQLite and not on the others, and needs its wildcards escaped;
the position of a text in another has neither fault. What does not live here: how texts are compared for
equality and order, which is the columns' collation (``db/schema.py``).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class contains(FunctionElement[bool]):  # noqa: N801 - it reads as the SQL function that it is
    """``contains(column, sa.bindparam("text"))``: whether the text is in the column's, case counting."""

    type = sa.Boolean()
    name = "contains"
    inherit_cache = True


@compiles(contains)
def _instr(element: contains, compiler: SQLCompiler, **kw: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kw)}) > 0"


@compiles(contains, "postgresql")
def _strpos(element: contains, compiler: SQLCompiler, **kw: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **kw)}) > 0"
