"""Statements made ready once: SQLAlchemy compiles them, the driver's own cursor runs them.

What a statement's text is, and how values of each type travel, stays SQLAlchemy's; only the bookkeeping
that it would repeat at each execution is left out. Where it has to do more than that (a list of a length
known only at execution, a key that the database makes), there is no prepared form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Row = Mapping[str, Any]
_Convert = Callable[[Any], Any]
_MOST: Final = 4096  # more than the service has; whoever builds statements per call pays for it alone


class Prepared:
    """One statement in one dialect, with the parameters that were named when it was made."""

    def __init__(self, compiled: SQLCompiler, statement: Any, names: tuple[str, ...]) -> None:
        """Take over what the compiler found."""
        self._dialect = compiled.dialect
        self._text = compiled.string
        self._order = list(compiled.positiontup or ()) if compiled.positional else None
        self._constants: dict[str, Any] = {}
        self._given: list[tuple[str, _Convert]] = []  # those parameters that are converted
        for name, bind in compiled.binds.items():
            convert = bind.type.dialect_impl(self._dialect).bind_processor(self._dialect)
            if name in names:
                if convert is not None:
                    self._given.append((name, convert))
            elif bind.required:
                raise TypeError(f"the statement needs a value for {name}")
            else:
                value = bind.effective_value
                self._constants[name] = value if convert is None else convert(value)
        given_back = statement.exported_columns if compiled.effective_returning else ()
        self._types = [column.type for column in getattr(statement, "selected_columns", given_back)]
        self._keys: list[str] = []
        self._converts: list[tuple[str, _Convert]] = []

    def execute(
        self, cursor: Any, parameters: Mapping[str, Any], before: bytes = b"", told: str = ""
    ) -> None:
        """Run the statement; after the texts ``before`` and ``told`` in the same round trip, on PostgreSQL.

        ``told`` is one in which ``%`` is doubled.
        """
        if before:
            cursor.execute(before + self.written_out(cursor, parameters, told))
        else:
            cursor.execute(told + self._text, self._bound(parameters))

    def written_out(self, cursor: Any, parameters: Mapping[str, Any], told: str = "") -> bytes:
        """Give the text that psycopg2 would send, its values in it."""
        text: bytes = cursor.mogrify(told + self._text, self._bound(parameters))
        return text

    def _bound(self, parameters: Mapping[str, Any]) -> Any:
        values = {**self._constants, **parameters}
        for name, convert in self._given:
            values[name] = convert(values[name])
        return values if self._order is None else [values[name] for name in self._order]

    def first(self, cursor: Any) -> Row | None:
        """Give the first row, or None."""
        values = cursor.fetchone()
        return None if values is None else self._rows(cursor, [values])[0]

    def all(self, cursor: Any) -> list[Row]:
        """Give all rows."""
        return self._rows(cursor, cursor.fetchall())

    def count(self, cursor: Any) -> int:
        """Give the number of rows that were changed."""
        return int(cursor.rowcount)

    def _rows(self, cursor: Any, found: list[Any]) -> list[Row]:
        if not self._keys:
            self._learn(cursor.description)
        rows = [dict(zip(self._keys, values, strict=True)) for values in found]
        for name, convert in self._converts:
            for row in rows:
                value = row[name]
                if value is not None:  # null is null in every type
                    row[name] = convert(value)
        return rows  # type: ignore[return-value]

    def _learn(self, description: Any) -> None:
        """Take the names of columns from the driver, as only it knows its own codes of types."""
        converts = []
        for column, type_ in zip(description, self._types, strict=True):
            convert = type_.dialect_impl(self._dialect).result_processor(self._dialect, column[1])
            if convert is not None:
                converts.append((column[0], convert))
        self._converts = converts
        self._keys = [column[0] for column in description]  # last, as another thread looks at it first


@lru_cache(maxsize=_MOST)
def prepare(statement: sa.Executable, dialect: Dialect, names: tuple[str, ...]) -> Prepared | None:
    """Give the prepared form of a statement for parameters of these names, or None if it has none.

    Raises:
        TypeError: the statement needs a parameter that is not among them.
    """
    if not isinstance(statement, sa.Select | sa.CompoundSelect | sa.Insert | sa.Update | sa.Delete):
        return None
    compiled: Any = statement.compile(dialect=dialect, column_keys=list(names))
    if compiled.post_compile_params or compiled.escaped_bind_names:
        return None
    if compiled.effective_returning and not _gives_back(statement):
        return None
    return Prepared(compiled, statement, names)


def _gives_back(statement: Any) -> bool:
    """Whether a change itself names columns to give back, of which SQLAlchemy adds none."""
    return bool(statement._returning)  # noqa: SLF001 - nothing public says so


def first_of(result: sa.CursorResult[Any]) -> Row | None:
    """Give the first row of what SQLAlchemy ran itself, or None."""
    row = result.first()
    return None if row is None else dict(zip(result.keys(), row, strict=True))


def all_of(result: sa.CursorResult[Any]) -> list[Row]:
    """Give all rows of it."""
    keys = tuple(result.keys())  # a mapping of each row would ask for them each time
    return [dict(zip(keys, row, strict=True)) for row in result]


def count_of(result: sa.CursorResult[Any]) -> int:
    """Give the number of rows that it changed."""
    return result.rowcount
