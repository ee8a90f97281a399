"""Rows of an export as JSON."""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import Any

from morag_meta.db.unit import Row
from moragmeta.v1 import exports_pb2 as pb


def row_to_proto(table: str, row: Row) -> pb.ExportUserDataResponse:
    """Give the message of one row."""
    return pb.ExportUserDataResponse(table=table, json=_json(row))


def line_of(table: str, row: Row) -> str:
    """Give one row as one line of JSON: an object of ``table`` and ``row``."""
    return f'{{"table": {json.dumps(table)}, "row": {_json(row)}}}'


def _json(row: Row) -> str:
    return json.dumps(dict(row), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    raise TypeError(type(value).__name__)
